"""The six days before the incident: fifteen runs in which everything works, refusals included."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from . import refunds, support
from .emitter import Emitter
from .people import JANA, LENA, MARC, PIOTR, SVEA
from .run import Run
from .telling import SECOND
from .texts import (
    KB_DELIVERY,
    KB_RETURNS,
    TICKET_ADDRESS,
    TICKET_BROKEN,
    TICKET_LATE,
    TICKET_LATE_AGAIN,
    TICKET_SIZE,
    TICKET_SPLIT,
    TICKET_TWICE,
    TICKET_WRONG,
)
from .tools import LIMITS_V2, LIMITS_V3

Chapter = Callable[[Emitter, int, random.Random], list[Run]]


def _late_parcel(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    run = support.begin(emitter, at=at, dice=dice, ticket=TICKET_LATE, customer=LENA, articles=[(KB_DELIVERY, 0.9)])
    support.draft(run, TICKET_LATE, "Your parcel is on its way and should arrive within two days.", score=0.93)
    support.email(run, LENA, "Your parcel", "It should arrive within two days.", after=64)
    run.end()
    return [run]


def _small_refund(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    return [
        refunds.issue(
            emitter,
            at=at,
            dice=dice,
            ticket=TICKET_LATE,
            customer=LENA,
            policy=LIMITS_V2,
            refund="RF-2101",
            order="86550",
            usd=18.5,
            reason="late_delivery",
        )
    ]


def _question(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    run = support.begin(emitter, at=at, dice=dice, ticket=TICKET_SIZE, customer=MARC, articles=[(KB_RETURNS, 0.55)])
    support.draft(run, TICKET_SIZE, "It runs a little small; a return is free within 30 days.", score=0.71)
    run.end()
    return [run]


def _modified_refund(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    return [
        refunds.propose(
            emitter,
            at=at,
            dice=dice,
            ticket=TICKET_BROKEN,
            customer=SVEA,
            policy=LIMITS_V2,
            refund="RF-2117",
            order="86902",
            usd=64.0,
            paid=58.0,
        )
    ]


def _nobody_answers(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    run = support.begin(emitter, at=at, dice=dice, ticket=TICKET_BROKEN, customer=SVEA, articles=[(KB_RETURNS, 0.91)])
    support.email(run, SVEA, "Your lamp", "The money is on its way.", after=1800, decision="expired")
    run.end()
    return [run]


def _drill(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    return [refunds.drill(emitter, at=at, dice=dice, ticket=TICKET_SPLIT, customer=SVEA, policy=LIMITS_V2)]


def _article(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    return [support.improve_article(emitter, at=at, dice=dice)]


def _denied_then_proposed(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    return [
        refunds.propose(
            emitter,
            at=at,
            dice=dice,
            ticket=TICKET_WRONG,
            customer=JANA,
            policy=LIMITS_V3,
            refund="RF-2160",
            order="87755",
            usd=40.0,
            paid=40.0,
            too_much_to_issue=True,
        )
    ]


def _refund_under_the_new_version(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    return [
        refunds.issue(
            emitter,
            at=at,
            dice=dice,
            ticket=TICKET_SPLIT,
            customer=SVEA,
            policy=LIMITS_V3,
            refund="RF-2164",
            order="87001",
            usd=4.9,
            reason="late_delivery",
        )
    ]


def _thanks(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    run = support.begin(emitter, at=at, dice=dice, ticket=TICKET_WRONG, customer=JANA, articles=[(KB_RETURNS, 0.89)])
    support.draft(run, TICKET_WRONG, "Keep the mug; we pay part of the price back.", score=0.9)
    support.email(run, JANA, "Your mugs", "Keep the green one; 40 USD are on their way.", after=129)
    run.end()
    return [run]


def _denied_edit(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    return [support.try_to_edit_config(emitter, at=at, dice=dice)]


def _paid_twice(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    return [refunds.pay_twice_and_cancel(emitter, at=at, dice=dice, ticket=TICKET_TWICE, customer=PIOTR, policy=LIMITS_V3)]


def _macro_and_hand_off(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    run = support.begin(emitter, at=at, dice=dice, ticket=TICKET_LATE_AGAIN, customer=MARC, articles=[(KB_DELIVERY, 0.94)])
    support.macro(run, MARC)
    support.hand_off(run, TICKET_LATE_AGAIN, "refunds_agent")
    run.end()
    paid = refunds.issue(
        emitter,
        at=run.now + 2 * SECOND,
        dice=dice,
        ticket=TICKET_LATE_AGAIN,
        customer=MARC,
        policy=LIMITS_V3,
        refund="RF-2195",
        order="89410",
        usd=6.9,
        reason="late_delivery",
        cause=run.handed_over,
    )
    return [run, paid]


def _promise_refused(emitter: Emitter, at: int, dice: random.Random) -> list[Run]:
    run = support.begin(emitter, at=at, dice=dice, ticket=TICKET_ADDRESS, customer=LENA, articles=[(KB_DELIVERY, 0.77)])
    support.email(run, LENA, "New address", "It will be there on Tuesday.", after=47, decision="denied")
    support.email(run, LENA, "New address", "We have passed the new address on to the carrier.", after=83)
    run.end()
    return [run]


CHAPTERS: Final[tuple[tuple[float, Chapter], ...]] = (
    (142.0, _late_parcel),
    (139.2, _small_refund),
    (120.5, _question),
    (117.1, _modified_refund),
    (97.3, _nobody_answers),
    (76.0, _drill),
    (71.4, _article),
    (60.2, _denied_then_proposed),
    (59.5, _thanks),
    (54.7, _refund_under_the_new_version),
    (45.6, _denied_edit),
    (30.3, _paid_twice),
    (22.8, _macro_and_hand_off),
    (4.1, _promise_refused),
)
"""Hours before `now`, and what happened. Version 3 of refund-limits came into use 60 hours before `now`."""

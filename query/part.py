"""One of the six answers: whether it is answered, one line for a person, and the records it rests on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal

Status = Literal["answered", "partly", "unknown"]
Part = dict[str, Any]

CONTRADICTED: Final = "RECORDS CONTRADICT EACH OTHER"
"""Two copies of a span that differ, or different decisions or approvals for one action: see the view `gaps`."""


def part(status: Status, text: str, records: Iterable[int | None], why: str = "", **named: Any) -> Part:
    """Put an answer together.

    Args:
        status: what of the question is answered.
        text: one line.
        records: the indexes it rests on; None and repetitions are left out.
        why: what is missing and what to emit to have it next time; given exactly when the status is not `answered`.
        named: the further members the contract names.
    """
    answer: Part = {
        "status": status,
        "text": text,
        "records": sorted({index for index in records if index is not None}),
    }
    if why:
        answer["why"] = why
    return answer | named

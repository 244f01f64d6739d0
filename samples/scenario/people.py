"""Who is in the story. All of it is invented, and the domains are reserved for examples (RFC 2606)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SUPPORT_OWNER: Final = "ines@example.com"
"""Answers for the support agent and its workflows."""
REFUNDS_OWNER: Final = "dana@example.com"
"""Answers for `refunds_agent`."""
SHIFT_LEAD: Final = "tomas@example.com"
"""Approves what the support agent asks for; takes his time."""
DEPUTY: Final = "rafael@example.com"
"""Stands in for the shift lead."""
ON_CALL: Final = "noor@example.com"
"""On call for payments."""


@dataclass(frozen=True)
class Customer:
    """A customer who wrote to us: the person on whose behalf an agent acts."""

    id: str
    email: str
    tenure_days: int


LENA: Final = Customer("cust-1042", "lena.hoff@mail.example", 812)
MARC: Final = Customer("cust-2217", "marc.dubois@mail.example", 455)
SVEA: Final = Customer("cust-3190", "svea.lind@mail.example", 1290)
PIOTR: Final = Customer("cust-4088", "piotr.nowak@mail.example", 301)
JANA: Final = Customer("cust-4415", "jana.prinz@mail.example", 640)
KESSLER: Final = Customer("cust-5127", "m.kessler@mail.example", 203)
ALMA: Final = Customer("cust-5130", "alma.reyes@mail.example", 197)
BO: Final = Customer("cust-5131", "bo.winter@mail.example", 188)

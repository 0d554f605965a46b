"""The checks of the charge: does any device or witness take part in a round that is not charged?

A round is asked of real devices and a real witness, by whoever calls: once as it should be, and once by a
server that skips the charge and shows that of an earlier round. Skipping it must be noticed by the devices,
and by the witness without the devices' help.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from fa_core.audit.checks import Check
from fa_core.privacy.ledger import show


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking for a round.

    Attributes:
        cost: what the plan costs. charged: what the ledger holds for this release, 0 where it holds nothing.
        devices: how many were asked. joined: how many of them answered.
        signed: whether the witness signed a roster of all of them, whether or not they would have joined.
    """

    cost: Fraction
    charged: Fraction
    devices: int
    joined: int
    signed: bool


Ask = Callable[[bool], Asked]
"""Whether the round is charged -> what came of it."""


def charge_checks(asked: Asked) -> tuple[Check, Check, Check]:
    """Return the checks of one round: what the ledger holds, and whether devices and witness take part."""
    joined = f"{asked.joined} of {asked.devices} joined"
    signed = "a roster signed" if asked.signed else "no roster signed"
    return (
        Check("ledger", asked.charged == asked.cost, f"rho {show(asked.charged)}", f"rho {show(asked.cost)}"),
        Check("devices", asked.joined == asked.devices, joined, f"{asked.devices} joined"),
        Check("witness", asked.signed, signed, "a roster signed"),
    )

"""What is set aside of a population's budgets for charges that are planned: the rules of the ledger.

Pure: no database, no clock. A reservation binds the owner of the ledger alone, who divides the budgets
between plans. Devices and the witness need none: they see to it that all that is charged fits the budgets,
whatever it was charged for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fa_core.errors import Refused
from fa_core.privacy.ledger import UNITS, Charge, Policy, Shortage, sentence, shortages, show


@dataclass(frozen=True, slots=True)
class Planned:
    """One charge that is planned.

    Attributes:
        name: what it is for, as "look 2".
        charge: as it would be made at the earliest moment at which it still can be.
    """

    name: str
    charge: Charge


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one holder has set aside: `planned` charges that are not made yet, empty where there are none."""

    holder: str
    planned: tuple[Planned, ...]


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A planned charge that would not fit, with the budgets that are short."""

    holder: str
    planned: Planned
    short: tuple[Shortage, ...]

    def __str__(self) -> str:
        charge = self.planned.charge
        lines = "\n".join(f"  {sentence(each, charge)}" for each in self.short)
        return f"{self.planned.name} of {self.holder}, planned for {charge.at:%Y-%m-%d %H:%M} UTC:\n{lines}"


def shortfalls(
    policy: Policy, past: Sequence[Charge], reservations: Sequence[Reservation]
) -> tuple[Shortfall, ...]:
    """Return the planned charges that do not fit beside `past` and those planned before them that do."""
    every = [(each.charge.at, own.holder, each) for own in reservations for each in own.planned]
    made, found = list(past), []
    for _, holder, planned in sorted(every, key=lambda each: each[0]):
        if short := shortages(policy, made, planned.charge):
            found.append(Shortfall(holder, planned, short))
        else:
            made.append(planned.charge)
    return tuple(found)


def newly_short(before: Sequence[Shortfall], after: Sequence[Shortfall]) -> tuple[Shortfall, ...]:
    """Return those of `after` that are not in `before`: what was short already is nobody else's doing."""
    known = {(each.holder, each.planned.name) for each in before}
    return tuple(each for each in after if (each.holder, each.planned.name) not in known)


def displaced(
    policy: Policy,
    past: Sequence[Charge],
    asked: Charge,
    before: Sequence[Reservation],
    after: Sequence[Reservation],
) -> tuple[Shortfall, ...]:
    """Return the planned charges that would no longer fit once `asked` is made.

    Args:
        past: the population's earlier charges.
        before, after: what is set aside without `asked`, and once it is charged: a charge that was planned
            is set aside no more.
    """
    return newly_short(shortfalls(policy, past, before), shortfalls(policy, (*past, asked), after))


def require_kept(
    policy: Policy,
    past: Sequence[Charge],
    asked: Charge,
    before: Sequence[Reservation],
    after: Sequence[Reservation],
) -> None:
    """Return if `asked` leaves room for what is set aside of its population's budgets.

    Raises Refused with the planned charges that would no longer fit, and who holds them. The arguments are
    those of `displaced`.
    """
    if lost := displaced(policy, past, asked, before, after):
        holders = " and ".join(dict.fromkeys(each.holder for each in lost))
        raise Refused(
            f"population {asked.population} has not enough budget for a release of {asked.family}, which "
            f"asks {UNITS[asked.currency]} {show(asked.cost)}: {holders} has set budget aside, which would "
            "then be short for\n" + "\n".join(str(each) for each in lost)
        )

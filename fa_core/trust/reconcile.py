"""The ledger beside the witness's journal: what each of the two has that the other lacks.

The aggregator keeps the ledger, the witness its journal. No masked sum is opened without a roster that the
witness signed, so a roster whose charge is not in the ledger is a sum that the ledger hides. The same holds
for a collection of two aggregators.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fa_core.errors import BadInput
from fa_core.privacy.ledger import UNITS, Charge, show
from fa_core.privacy.ledger_rows import decode

ROSTER, COLLECTION, CHARGE, CHECKPOINT = "-roster", "-collection", "-charge", "checkpoint"
"""How the witness names the entries of its journal: a release and this ending; the last log it cosigned."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What a witness's journal holds.

    Attributes:
        rosters: releases (32 hex digits) for which it signed a roster or a collection.
        charges: by release, the charge that it was shown, at its own time.
        checkpoint: the last note of the log that it cosigned, None before the first.
    """

    rosters: frozenset[str]
    charges: Mapping[str, Charge]
    checkpoint: bytes | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs.

    Attributes:
        unused: releases that were charged and have no roster: no fault, and nothing was masked for them.
        problems: what must not be, one sentence each.
    """

    unused: tuple[str, ...]
    problems: tuple[str, ...]


def read_journal(directory: Path) -> Signed:
    """Return what a witness's journal holds. Raises BadInput where it is none or an entry cannot be read."""
    if not directory.is_dir():
        raise BadInput(f"{directory}: there is no such directory; the journal is `journal` in the witness's")
    signed = (file for ending in (ROSTER, COLLECTION) for file in directory.glob(f"*{ending}"))
    rosters = {file.name.split("-")[0] for file in signed}
    charges = {}
    for file in sorted(directory.glob(f"*{CHARGE}")):
        try:
            charge = decode(file.read_bytes())
        except (BadInput, OSError) as error:
            raise BadInput(f"{file} cannot be read: {error}") from None
        if not isinstance(charge, Charge) or file.name != charge.release + CHARGE:
            raise BadInput(f"{file} is not the charge that its name says")
        charges[charge.release] = charge
    note = directory / CHECKPOINT
    return Signed(frozenset(rosters), charges, note.read_bytes() if note.is_file() else None)


def compare(ledger: Iterable[Charge], journal: Signed) -> Comparison:
    """Return what ledger and journal do not agree on."""
    charged = {each.release: each for each in ledger}
    problems = []
    for release in sorted(journal.rosters | set(journal.charges)):
        ours, theirs = charged.get(release), journal.charges.get(release)
        if theirs is None:
            problems.append(
                f"release {release}: the witness signed a roster and has no charge in its journal"
            )
        if ours is None:
            problems.append(f"release {release}: the witness signed a roster, and the ledger has no charge")
        elif theirs is not None and replace(theirs, at=ours.at) != ours:
            problems.append(f"release {release}: {_difference(ours, theirs)}")
    unused = tuple(release for release in charged if release not in journal.rosters)
    return Comparison(unused, tuple(problems))


def _difference(ours: Charge, theirs: Charge) -> str:
    if (ours.cost, ours.currency) != (theirs.cost, theirs.currency):
        return (
            f"the ledger charges {UNITS[ours.currency]} {show(ours.cost)}, the witness was shown "
            f"{UNITS[theirs.currency]} {show(theirs.cost)}"
        )
    return "the charge in the ledger is not the one that the witness was shown"

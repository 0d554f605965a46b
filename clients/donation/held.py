"""What a device holds of its owner's donations: for their export, and whether it agrees with the journal.

What the check can show: every sample that was offered has its own token; every withdrawal that the journal or
the table names rests on a statement of deletion, of that very sample, that the vault signed. The statement
itself is no proof (`fa_core.donation.statement`).
"""

import json
from collections.abc import Iterator

from clients.device.journal import Entry, Json
from clients.device.store import Store
from clients.donation.records import Donation, Donations
from fa_core.donation.sealing import sample_id
from fa_core.donation.statement import Statement
from fa_core.errors import BadInput


def exported(store: Store) -> list[Json]:
    """Return every donation as the owner reads it, with the token that withdraws it; oldest first.

    It has neither audio nor the key of a sample: the device keeps none. Bytes are hexadecimal digits.
    """
    return [
        {
            "sample": each.sample.hex(),
            "token": each.token.hex(),
            "request": each.request.hex(),
            "area": each.area,
            "vault": each.vault,
            "vault_key": each.vault_key.hex(),
            "at": each.at.isoformat(),
            "until": each.until.isoformat() if each.until else None,
            "state": each.state,
        }
        for each in Donations(store).all()
    ]


def problems(store: Store) -> list[str]:
    """Return what does not hold, as sentences; empty where all does."""
    return list(_problems(Donations(store).all(), store.entries()))


def _problems(donations: list[Donation], entries: list[Entry]) -> Iterator[str]:
    held = {each.sample.hex(): each for each in donations}
    offered = {str(each.body["sample"]) for each in entries if each.kind == "donation_offered"}
    withdrawals = [each for each in entries if each.kind == "donation_withdrawn"]
    for sample in sorted(offered - held.keys()):
        yield f"the token of donation {sample} is gone: it can no longer be withdrawn"
    for sample in sorted(held.keys() - offered):
        yield f"donation {sample} is not in the journal"
    for sample, donation in held.items():
        if sample_id(donation.token) != donation.sample:
            yield f"the token of donation {sample} is another sample's"
    for entry in withdrawals:
        own = held.get(str(entry.body["sample"]))
        if own is not None and not _destroyed(own, entry):
            sample = own.sample.hex()
            yield f"entry {entry.sequence}: the vault signed no such statement of deletion of {sample}"
    said = {str(each.body["sample"]) for each in withdrawals}
    for sample, donation in held.items():
        if (donation.state == "withdrawn") != (sample in said):
            yield f"donation {sample} is {donation.state!r}, which is not what the journal says"


def _destroyed(donation: Donation, entry: Entry) -> bool:
    """Return whether an entry holds the vault's signed statement that it destroyed this very sample."""
    signed = {"document": entry.body["statement"], "signature": entry.body["signature"]}
    try:
        found = Statement.read(json.dumps(signed).encode(), donation.vault_key)
    except BadInput:
        return False
    about = (found.said, found.sample, found.request, found.reads)
    return about == ("destroyed", donation.sample, donation.request, entry.body["reads"])

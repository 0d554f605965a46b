"""The journal: what was granted, sent, refused and deleted, each entry chained to the one before by its hash.

An entry's hash is SHA-256 of its canonical JSON, which holds the hash of the entry before. Changing,
dropping or inserting an entry breaks the chain at that place; cutting the end off is found by an owner who
wrote down the head (`fa device status` prints it, `fa device verify --head` asks for it). No entry holds
an event or a count of events by value: only how many rows were deleted, and what a plan was and cost.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Kind = Literal[
    "created", "granted", "revoked", "contributed", "declined", "expired", "forgotten",
    "model_kept", "model_refused", "rollout", "donation_offered", "donated", "donation_withdrawn", "personal",
]  # fmt: skip
Json = str | int | bool | None | list["Json"] | dict[str, "Json"]

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal. `previous` and `hash` are hex SHA-256."""

    sequence: int
    at: datetime
    kind: Kind
    body: Mapping[str, Json]
    previous: str
    hash: str


def digest(sequence: int, at: datetime, kind: Kind, body: Mapping[str, Json], previous: str) -> str:
    """Return the hash of an entry: SHA-256 over JSON with sorted keys, no spaces, non-ASCII escaped."""
    whole = {"sequence": sequence, "at": at.isoformat(), "kind": kind, "body": body, "previous": previous}
    return hashlib.sha256(
        json.dumps(whole, sort_keys=True, separators=(",", ":")).encode("ascii")
    ).hexdigest()


def extend(last: Entry | None, at: datetime, kind: Kind, body: Mapping[str, Json]) -> Entry:
    """Return the entry that follows `last`."""
    sequence = last.sequence + 1 if last else 1
    previous = last.hash if last else GENESIS
    return Entry(sequence, at, kind, body, previous, digest(sequence, at, kind, body, previous))


def broken_at(entries: Iterable[Entry]) -> int | None:
    """Return the sequence number at which the chain breaks, or None if it holds from the start."""
    previous, expected = GENESIS, 1
    for entry in entries:
        right = digest(entry.sequence, entry.at, entry.kind, entry.body, entry.previous)
        if (entry.sequence, entry.previous, entry.hash) != (expected, previous, right):
            return expected
        previous, expected = entry.hash, expected + 1
    return None


def sentence(entry: Entry) -> str:
    """Return an entry as a plain sentence for the device's owner."""
    body = entry.body
    if entry.kind == "created":
        return "This store was made; it was empty."
    if entry.kind == "granted":
        return f"You consented to {body['purpose']} until {body['until']}."
    if entry.kind == "revoked":
        return f"Consent to {body['purpose']} ended ({body['why']}); {_deleted(body)}.{_taken_back(body)}"
    if entry.kind == "expired":
        return f"Kept long enough: {_deleted(body)}."
    if entry.kind == "forgotten":
        return f"You asked to forget {body['scope']}; {_deleted(body)}.{_taken_back(body)}"
    if entry.kind == "model_kept":
        about = f" for {body['wake_word']}" if body["wake_word"] else ""
        return f"Took in the {body['kind']} {body['version']}{about}, signed by {body['signer']}."
    if entry.kind == "model_refused":
        return f"Refused the model {str(body['model'])[:12]}: {body['why']}."
    if entry.kind == "declined":
        return f"Said no to a request: {body['why']}."
    if entry.kind == "personal":
        return _personal(body)
    if entry.kind == "rollout":
        state = str(body["state"]).replace("_", " ")
        return f"Rollout {body['rollout']} for {body['wake_word']} is {state}: {body['meaning']}."
    if entry.kind in ("donation_offered", "donated", "donation_withdrawn"):
        return _donation(entry.kind, body)
    return (
        f"Took part in {body['plan']} revision {body['revision']} ({body['question']}), signed by "
        f"{body['signer']}, for the {body['window']} up to {body['until']}. It read {body['columns']} of "
        f"{body['source']}{_facts(body)} and sent one {_sent(body)} of {body['cells']} counts"
        f"{' of nothing: ' + str(body['zeros']) if body['zeros'] else ''}. It cost {body['cost']}."
        f"{_biometric(body)}{_faced(body)}"
    )


def _sent(body: Mapping[str, Json]) -> str:
    return "report" if "helper" in body else f"{body['protection']} vector"


def _faced(body: Mapping[str, Json]) -> str:
    """Return what a receipt of a collection says of who could learn what, and until when it is taken back."""
    if "helper" not in body:
        return ""
    return (
        " The report is in two shares, one for a leader and one for a helper, and neither says anything by "
        f"itself. A reader of the release faces {body['reader']} if both are honest; the leader, who knows "
        f"its own noise, {body['leader']}, and the helper {body['helper']}. Nothing protects against both "
        f"together: they could read it. Until {body['closes']} it is taken back where you revoke the consent "
        f"or forget what it counted. {_VERIFIED}"
    )


_VERIFIED = (
    "A report that is taken back before it is verified is not counted; one that is verified cannot be called "
    "back. Its cost stays."
)


def _taken_back(body: Mapping[str, Json]) -> str:
    """Return what the end of a consent, or a deletion, says of reports that it took back."""
    plans = body.get("reports")
    if not isinstance(plans, dict):
        return ""
    which = " and ".join(map(str, plans.values()))
    return f" What was reported to {which} is taken back. {_VERIFIED}"


def _biometric(body: Mapping[str, Json]) -> str:
    if "biometric" not in body:
        return ""
    return (
        " It was for training: the vector is a mean of how the wake word sounded here, which names its "
        "speaker, under a mask and in the noise of all devices. Between two voices it cost up to "
        f"{body['between_voices']}."
    )


def _donation(kind: Kind, body: Mapping[str, Json]) -> str:
    sample = f"the sample {str(body['sample'])[:12]}"
    if kind == "donation_offered":
        return (
            f"You agreed to send {sample} for {body['area']} to the vault {body['vault']}, sealed for "
            f"{body['reviewers']} together."
        )
    if kind == "donated":
        return f"The vault {body['vault']} signed that it keeps {sample} until {body['until']}."
    return (
        f"You withdrew {sample}: the vault {body['vault']} signed that it destroyed it. That is its "
        f"statement and no proof; copies that reviewers made are outside it (reads before: {body['reads']})."
    )


def _deleted(body: Mapping[str, Json]) -> str:
    rows = body["rows"]
    assert isinstance(rows, dict)
    named = [f"{count} of {table}" for table, count in sorted(rows.items()) if count]
    return "deleted " + ", ".join(named) if named else "there was nothing to delete"


def _personal(body: Mapping[str, Json]) -> str:
    adapter, word, why = f"Adapter {body['number']} for {body['wake_word']}", body["wake_word"], body["why"]
    return {
        "learn": f"Nothing was learned for {word}: {why}." if why else f"{adapter} was learned.",
        "validate": f"{adapter} passed its checks.",
        "shadow": f"{adapter} is heard beside the model that acts.",
        "activate": f"{adapter} acts.",
        "revert": f"{adapter} was taken back ({why}); the model acts as it came.",
        "reset": f"{adapter} has acted for its time; the model acts as it came.",
        "retire": f"{adapter} went, with what was kept to learn from: {why}.",
        "forget": f"{adapter} was forgotten: {why}.",
    }[str(body["step"])]


def _facts(body: Mapping[str, Json]) -> str:
    return f" and this device's {body['facts']}" if body["facts"] else ""

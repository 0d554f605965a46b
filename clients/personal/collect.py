"""What may be learned from: features of weakly labelled moments, a few, in the encrypted store, never audio.

Nothing is kept without the owner's consent to personalisation. A session is an hour (UTC): whoever says a
near miss again and again is heard in two moments of it, and in five of a day, however often the device is
restarted. Moments in which the device itself is sounding are left out.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final

from clients.device.personal import KeptMoment, PersonalRecords
from clients.personal.adapter import Windows
from clients.personal.features import vector_of
from clients.personal.moments import A_DAY, A_SESSION, WANTED, Moment, decode, encode
from clients.runtime.labels import Labelled
from fa_core.errors import BadInput

_SOURCES: Final[Mapping[tuple[str | None, str | None], str]] = MappingProxyType(
    {
        ("false_reject", "retry"): "retry",
        ("true_accept", "follow_up"): "follow_up",
        ("true_accept", "explicit"): "explicit_yes",
        ("false_accept", "cancel"): "cancel",
        ("false_accept", "explicit"): "explicit_no",
    }
)


def source_of(label: Labelled) -> str | None:
    """Return what a label says of a moment, as a source that is learned from; None where it says nothing."""
    return None if label.detection.playback else _SOURCES.get((label.outcome, label.source))


def session_of(at: datetime) -> str:
    """Return the session that a time (UTC) lies in: its hour."""
    return f"{at:%Y-%m-%dT%H}"


def collect(records: PersonalRecords, label: Labelled, base: str, windows: Windows, now: datetime) -> bool:
    """Keep a labelled moment, where it may be kept; return whether it was. To be called in a transaction.

    Args:
        base: hex SHA-256 of the head whose logits and features the windows (at most 3) have.
    """
    source, at, wake_word = source_of(label), label.detection.time, label.detection.wake_word
    if source is None or not windows.base.size or not records.allowed(now):
        return False
    kept, session = records.moments(wake_word), session_of(at)
    today = sum(each.at.date() == at.date() for each in kept)
    if today >= A_DAY or sum(each.session == session for each in kept) >= A_SESSION:
        return False
    records.keep_moment(KeptMoment(at, wake_word, base, session, source, encode(windows)), now)
    if source in WANTED:
        records.keep_features(at, wake_word, base, vector_of(windows), now)
    return True


def moments_of(records: PersonalRecords, wake_word: str, base: str) -> list[Moment]:
    """Return the moments that are kept for a wake word and a base, the oldest first."""
    found = []
    for each in records.moments(wake_word):
        if each.base == base:
            try:
                found.append(Moment(each.at, each.session, each.source, decode(each.windows)))
            except BadInput:
                continue  # damaged: it is not learned from, and goes when its time is over
    return found

"""What the owner reads of personalisation: what is kept, what it gained with its uncertainty, and why not.

Shares have the exact limits of Clopper and Pearson (1934), at 95%. They are of moments that the device knows
of: a wake word that was said once and that neither heard is in none of them.
"""

from dataclasses import dataclass
from datetime import datetime

from scipy.stats import beta

from clients.device.owner import DeviceHome
from clients.device.personal import InUse, PersonalRecords
from clients.device.store import MOMENT_KEPT
from clients.personal import stages
from clients.personal.collect import moments_of
from clients.personal.delta import Delta
from clients.personal.learning import Learner, kept_anchors
from clients.personal.moments import WANTED, countable
from clients.personal.stages import ACTS_FOR


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `of` moments; `low` and `high` are the exact 95% limits of the share, 0 and 1 of nothing."""

    count: int
    of: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Compared:
    """Moments in which the wake word was meant and missed, and others in which the device woke."""

    missed_base: Share
    missed_adapted: Share
    false_base: Share
    false_adapted: Share


@dataclass(frozen=True, slots=True)
class InUseStatus:
    """The adapter in use. `wrong` says why it will not be loaded; `until` when it is put aside.

    `before` is of moments that it was not fitted on (five folds), `since_then` of those in its present stage.
    """

    number: int
    stage: str
    since: str
    until: str | None
    wrong: str | None
    before: Compared | None
    since_then: Compared


@dataclass(frozen=True, slots=True)
class WordStatus:
    """One wake word: moments kept to learn from, the adapter, the last attempt, and why none is made now."""

    wake_word: str
    wanted: int
    unwanted: int
    counting: int
    oldest_goes: str | None
    anchors: bool
    adapter: InUseStatus | None
    learned_at: str | None
    learned: str | None
    not_now: str | None


@dataclass(frozen=True, slots=True)
class PersonalStatus:
    """The state of personalisation on a device."""

    consent_until: str | None
    wake_words: tuple[WordStatus, ...]


def status(learner: Learner, now: datetime) -> PersonalStatus:
    """Return the state of personalisation at `now`; nothing is changed."""
    home = learner.home
    records = PersonalRecords(home.store)
    grants = {each.purpose: each for each in home.store.grants()}
    until = grants["personalisation"].until.isoformat() if "personalisation" in grants else None
    words = {each.wake_word for each in records.moments()} | {each.wake_word for each in records.all_in_use()}
    found = tuple(_word(learner, records, home, word, now) for word in sorted(words))
    return PersonalStatus(until, found)


def _word(
    learner: Learner, records: PersonalRecords, home: DeviceHome, wake_word: str, now: datetime
) -> WordStatus:
    kept, used = records.moments(wake_word), records.in_use(wake_word)
    base = kept[-1].base if kept else ""
    last, why = records.attempt(wake_word), learner.due(wake_word, now)
    wanted = sum(each.source in WANTED for each in kept)
    return WordStatus(
        wake_word,
        wanted,
        len(kept) - wanted,
        len(countable(moments_of(records, wake_word, base), now)),
        (kept[0].at + MOMENT_KEPT).isoformat() if kept else None,
        bool(kept) and kept_anchors(home, base, wake_word) is not None,
        _in_use(records, used) if used is not None else None,
        last.at.isoformat() if last is not None else None,
        (last.why or "an adapter was learned") if last is not None else None,
        why.value if why is not None else None,
    )


def _in_use(records: PersonalRecords, used: InUse) -> InUseStatus:
    found = stages.checked(records, used)
    heard = stages.heard_of(used.heard)
    wanted, others = [each for each in heard if each.wanted], [each for each in heard if not each.wanted]
    since_then = Compared(
        share(sum(not each.base for each in wanted), len(wanted)),
        share(sum(not each.adapted for each in wanted), len(wanted)),
        share(sum(each.base for each in others), len(others)),
        share(sum(each.adapted for each in others), len(others)),
    )
    until = (used.since + ACTS_FOR).isoformat() if used.stage == "active" else None
    wrong, before = (None, _gain(found)) if isinstance(found, Delta) else (found, None)
    return InUseStatus(used.number, used.stage, used.since.isoformat(), until, wrong, before, since_then)


def _gain(delta: Delta) -> Compared:
    gain, none = delta.gain, share(0, 0)
    base, changed = (share(gain.moments - each, gain.moments) for each in (gain.base, gain.adapted))
    return Compared(base, changed, none, none)


def share(count: int, of: int) -> Share:
    """Return a share with its exact 95% limits (Clopper and Pearson 1934)."""
    low = float(beta.ppf(0.025, count, of - count + 1)) if count else 0.0
    high = float(beta.ppf(0.975, count + 1, of - count)) if count < of else 1.0
    return Share(count, of, low, high)

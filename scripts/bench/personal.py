"""What an adapter learned on the device gains its owner, and what it costs everybody else.

    python -m scripts.bench.personal [--users 16] [--positives 3,5,10,20] [--wrong 0,0.1,0.2,0.8]
    python -m scripts.bench.personal --choose

Synthetic speakers that trained nothing: each user says the wake word often, some of which the device learns from
and the rest of which is measured. Wrong labels are near misses that the device takes for the wake word. Everything
is at the threshold that `clients.personal.anchors` sets on anchors that the fit has not seen; false accepts are
counted on human speech and near misses that are in no anchor set. Beside it, the base. Rates have exact 95%
limits (Clopper & Pearson 1934; Poisson for rates an hour, which are shown for 20 hours of speech or more only).
`--choose` prints what the penalty of the fit was chosen by, on development speakers alone.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import beta

from clients.fleet.audio import SEGMENT_SECONDS, human_speech, require_speech
from clients.personal import fit as fitting
from clients.personal.adapter import Step, Windows
from clients.personal.anchors import Anchors
from clients.personal.learn import Candidate, Refusal, learn, logit
from scripts.bench.personal_voices.speakers import USERS, Spoken, embed_all, script, shipped_head

LEAST_HOURS: Final = 20.0
BASE: Final = Step(np.zeros(96), 0.0)


@dataclass(frozen=True)
class Speech:
    """What was spoken and heard. `own`: by speaker, the wake word and near misses; the rest is public."""

    own: dict[str, tuple[list[Windows], list[Windows]]]
    anchors: Anchors
    human: list[Windows]
    near: list[Windows]


@dataclass(frozen=True)
class Row:
    """One user at one number of moments and share of wrong labels."""

    opened: bool
    heard: int
    missed: int
    missed_base: int
    false_near: float
    false_near_base: float
    false_human: int
    false_human_base: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Speak, learn, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--positives", default="3,5,10,20")
    parser.add_argument("--wrong", default="0,0.1,0.2,0.8")
    parser.add_argument("--takes", type=int, default=40, help="wake words that a user says")
    parser.add_argument("--anchors", type=int, default=100, help="clips of each kind in the anchor set")
    parser.add_argument("--choose", action="store_true", help="choose the penalty on development speakers")
    given = parser.parse_args(arguments)
    require_speech()
    speech = _speak("development" if given.choose else "users", given.users, given.takes, given.anchors)
    if given.choose:
        _choose(speech)
        return
    counts = [int(each) for each in given.positives.split(",")]
    shares = [float(each) for each in given.wrong.split(",")]
    print("moments  wrong | before  after  95%           | gate opens  hurt | near misses before after")
    for share in shares:
        for count in counts:
            print(_line(count, share, list(_rows(speech, count, share))))
    seconds = len(speech.human) * SEGMENT_SECONDS
    hours = seconds / 3600
    if hours < LEAST_HOURS:
        print(f"false accepts an hour: not shown, from {hours:.2f} h of held-out human speech")
    _cost(speech)


def _speak(group: str, users: int, takes: int, anchors: int) -> Speech:
    people: dict[str, list[Spoken]] = {}
    for each in script((group,)):  # type: ignore[arg-type]
        people.setdefault(each.voice, []).append(each)
    chosen = list(people)[:: max(1, len(people) // users)][:users]
    clips = [clip for voice in chosen for clip in _some(people[voice], takes)]
    public = [each for each in script(("fleet", "test")) if not each.wake]
    public = public[:: max(1, len(public) // (2 * anchors))][: 2 * anchors]
    human = range(min(2 * anchors, len(human_speech())))
    heard, recorded = embed_all([*clips, *public], human)
    own: dict[str, tuple[list[Windows], list[Windows]]] = {voice: ([], []) for voice in chosen}
    for clip, windows in zip(clips, heard, strict=False):
        own[clip.voice][0 if clip.wake else 1].append(windows)
    others = heard[len(clips) :]
    anchored = Anchors(tuple(recorded[::2]), tuple(others[::2]), len(recorded[::2]) * SEGMENT_SECONDS)
    return Speech(own, anchored, recorded[1::2], others[1::2])


def _some(clips: Sequence[Spoken], takes: int) -> list[Spoken]:
    wakes = [each for each in clips if each.wake][:takes]
    return wakes + [each for each in clips if not each.wake]


def _rows(speech: Speech, count: int, share: float) -> Iterator[Row]:
    limit = logit(shipped_head().threshold)
    for number, (wakes, near) in enumerate(speech.own.values()):
        random = np.random.default_rng([number, count, round(100 * share)])
        learned, measured = wakes[: max(count, 1)], wakes[max(count, 1) :]
        wrong = random.binomial(count, share)
        moments = [*learned[: count - wrong], *(near[at % len(near)] for at in range(wrong))]
        unheard_near = near[wrong:] or near
        found = learn(moments, [], speech.anchors, limit) if count else Refusal.FEW
        opened = isinstance(found, Candidate)
        step, level = (found.step, found.threshold) if isinstance(found, Candidate) else (BASE, limit)
        yield Row(
            opened=opened,
            heard=len(measured),
            missed=_missed(step, level, measured),
            missed_base=_missed(BASE, limit, measured),
            false_near=1 - _missed(step, level, unheard_near) / len(unheard_near),
            false_near_base=1 - _missed(BASE, limit, unheard_near) / len(unheard_near),
            false_human=len(speech.human) - _missed(step, level, speech.human),
            false_human_base=len(speech.human) - _missed(BASE, limit, speech.human),
        )


def _missed(step: Step, level: float, clips: Sequence[Windows]) -> int:
    return sum(not (step.logits(each) > level).any() for each in clips)


def _line(count: int, share: float, rows: Sequence[Row]) -> str:
    missed, heard = sum(each.missed for each in rows), sum(each.heard for each in rows)
    low, high = limits(missed, heard)
    hurt = np.mean([each.missed > each.missed_base + 0.03 * each.heard for each in rows])
    return (
        f"{count:7d} {share:6.0%} | {sum(each.missed_base for each in rows) / heard:6.1%} {missed / heard:6.1%}  "
        f"({low:.1%} to {high:.1%}) | {np.mean([each.opened for each in rows]):10.0%} {hurt:5.0%} | "
        f"{np.mean([each.false_near_base for each in rows]):18.1%} {np.mean([each.false_near for each in rows]):6.1%}"
        f" | human {sum(r.false_human_base for r in rows)} {sum(r.false_human for r in rows)}"
    )


def limits(hits: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact limits of a share (Clopper & Pearson 1934)."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, of - hits + 1))
    high = 1.0 if hits == of else float(beta.ppf(1 - tail, hits + 1, of - hits))
    return low, high


def _choose(speech: Speech) -> None:
    print("penalty  after  near misses  opened")
    for penalty in (0.01, 0.03, 0.1, 0.3, 1.0):
        fitting.PENALTY = penalty  # type: ignore[misc]
        rows = list(_rows(speech, 4, 0.0))
        print(penalty, rows[0])


def _cost(speech: Speech) -> None:
    wakes = next(iter(speech.own.values()))[0][:10]
    limit = logit(shipped_head().threshold)
    began = time.process_time()
    learn(wakes, [], speech.anchors, limit)
    print(f"a fit with its gate: {1000 * (time.process_time() - began):.0f} ms of CPU")


if __name__ == "__main__":
    main()

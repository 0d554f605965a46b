"""What an adapter learned on the device gains its owner, and what it costs everybody else.

    python -m scripts.bench.personal [--users 192] [--speech DIR] [--synthetic HOURS] [--human DIR]
                                     [--sounds DIR] [--cache DIR] [--json FILE]
    python -m scripts.bench.personal --choose

Synthetic speakers that trained nothing, in the accents that the base hears worst: each says the wake word
often; some takes are what the device learns from, and the rest is measured. Wrong labels are near misses that
the device takes for the wake word. Every adapter is at the threshold that `clients.personal` sets on anchors
which the fit has not seen. Calls, near misses and speech that are counted are in no anchor set, nor are the
phrases of the near misses. Beside it stands the base at its own threshold. Limits are exact, 95% (Clopper &
Pearson 1934; Garwood 1936 for rates an hour).

`--choose` measures other constants of the method, on development speakers alone. `--speech` is a folder of
recordings of people, each voice in a folder of its own (`scripts.bench.personal_voices.recordings` makes one
of Debian's packages), `--synthetic` hours that this machine's engines read; a rate an hour is claimed from 20
hours of both on. `--human` is a folder of recordings of people saying "alexa", `--sounds` Debian's folder of
asterisk-core-sounds, in as many languages as are there: for the anchor set.
"""

import argparse
import json
import time
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from clients.fleet.audio import HUMAN_SPEECH, require_speech
from clients.personal.adapter import adapted
from clients.personal.anchors import MARGIN
from clients.personal.fit import fit
from clients.personal.learn import AROUND, Candidate, learn
from clients.runtime.detectors import EMBEDDING_HOP, SAMPLE_RATE, EmbeddingDetector, shipped_head
from scripts.bench.personal_voices.attacks import Outcome, attacks
from scripts.bench.personal_voices.choose import choose
from scripts.bench.personal_voices.hours import FalseWakes, Speech, compared, speech_of, wakes
from scripts.bench.personal_voices.measure import (
    BASE,
    LEARNED,
    LEAST_HOURS,
    World,
    rate_limits,
    rows,
    share_limits,
    world,
)
from scripts.bench.personal_voices.people import Drawn, people
from scripts.bench.personal_voices.speakers import TAKES, Set
from scripts.bench.personal_voices.speech import Kind, Stream, embed_streams, recordings, synthetic
from scripts.bench.personal_voices.watching import ACTING, WINDOW, Watched

USERS: Final = 192
POSITIVES: Final = (3, 5, 10, 20)
WRONG: Final = (0.0, 0.1, 0.2)
REACH: Final = {"moments": 10, "wrong": 0.1, "missed": 0.07, "hurt": 0.03}


@dataclass(frozen=True, slots=True)
class Summary:
    """All users at one number of moments and share of wrong labels: pairs are the base's and the adapters'.

    Attributes:
        opened, hurt: users with an adapter, and users who are missed more than 3 points more.
        missed: of `calls`. own_near: of `said` near misses of the users' voices that wake.
        near: of others' near misses, a user's mean.
        speech: false wakes of the users' adapters over hours of speech; none without speech or adapters.
    """

    moments: int
    wrong: float
    users: int
    opened: int
    hurt: int
    calls: int
    missed: tuple[int, int]
    said: int
    own_near: tuple[int, int]
    near: tuple[float, float]
    speech: tuple[FalseWakes, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Speak, learn, measure, print. 1 where the reach is missed."""
    given = _parser().parse_args(arguments)
    require_speech()
    group: Set = "development" if given.choose else "users"
    clips = None if given.cache is None else given.cache / "clips.npz"
    among = world(group, LEARNED + given.takes, given.anchors, given.sounds, clips, given.users)
    print(
        f"{len(among.voices)} {group} speakers, anchors of {len(among.anchors.human)} + "
        f"{len(among.anchors.near)} windows; measured on {len(among.near)} near misses of others"
    )
    if given.choose:
        choose(among)
        return 0
    speech = _speech(given)
    found = [summary(among, speech, count, share) for share in WRONG for count in POSITIVES]
    _print_users(found, among)
    _print_speech(found)
    _print_attacks(list(attacks(among)), len(among.near))
    _print_cost(among)
    if given.human is None or not any(given.human.glob("*.flac")):
        print("\npeople: skipped; --human DIR with .flac recordings of people saying alexa is not there")
    else:
        _print_people(people(given.human, given.sounds, clips, given.anchors, POSITIVES))
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n", "utf-8")
    return 0 if _reached(found) else 1


def _speech(given: argparse.Namespace) -> Speech | None:
    """Embed the hours of speech that were asked for, and print of whom they are; None where none were."""
    people = [] if given.speech is None else list(recordings(given.speech))
    read, missing = synthetic(given.synthetic) if given.synthetic else ([], [])
    if missing:
        print(f"no speech of {', '.join(missing)}: not on this machine")
    streams = [*people, *read]
    if not streams:
        return None
    cache = None if given.cache is None else given.cache / "streams"
    speech = speech_of(streams, embed_streams(streams, cache), shipped_head("okay_nabu"))
    kinds: tuple[tuple[Kind, Sequence[Stream]], ...] = (("people", people), ("synthetic", read))
    for kind, some in kinds:
        print(f"{speech.hours[speech.of(kind)].sum():.2f} h of {kind}, {len({each.voice for each in some})} "
              "voices or folders")  # fmt: skip
    return speech


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--takes", type=int, default=TAKES - LEARNED, help="wake words measured, a user")
    parser.add_argument("--anchors", type=int, default=100, help="windows of each kind in the anchor set")
    parser.add_argument("--sounds", type=Path, default=HUMAN_SPEECH.parent, help="speech for the anchor set")
    parser.add_argument("--speech", type=Path, help="recordings of people, a folder a voice")
    parser.add_argument("--synthetic", type=float, default=0.0, help="hours that engines read")
    parser.add_argument("--human", type=Path, help="a folder of recordings of people saying alexa")
    parser.add_argument("--cache", type=Path, help="a folder of embeddings, read and written")
    parser.add_argument("--choose", action="store_true", help="other constants, on development speakers")
    parser.add_argument("--json", type=Path, help="write the users' figures there")
    return parser


def summary(among: World, speech: Speech | None, count: int, share: float) -> Summary:
    """Return what users have at so many moments, a share of them wrong."""
    found = list(rows(among, count, share))
    before, after = [each.base for each in found], [each.after for each in found]
    opened = [each.found for each in found if isinstance(each.found, Candidate)]
    return Summary(
        moments=count,
        wrong=share,
        users=len(found),
        opened=len(opened),
        hurt=sum(each.hurt for each in found),
        calls=sum(each.calls for each in found),
        missed=(sum(each.missed for each in before), sum(each.missed for each in after)),
        said=sum(each.near for each in found),
        own_near=(sum(each.own_near for each in before), sum(each.own_near for each in after)),
        near=(float(np.mean([each.near for each in before])), float(np.mean([each.near for each in after]))),
        speech=() if speech is None or not opened else tuple(_false_wakes(among, speech, opened)),
    )


def _false_wakes(among: World, speech: Speech, opened: Sequence[Candidate]) -> list[FalseWakes]:
    steps = [BASE, *(each.step for each in opened)]
    counts = wakes(speech, steps, [among.limit, *(each.threshold for each in opened)])
    return compared(speech, counts[0], counts[1:])


def _reached(found: Sequence[Summary]) -> bool:
    """Print whether the reach is met, part by part; false wakes where there are `LEAST_HOURS` of speech."""
    (one,) = (each for each in found if (each.moments, each.wrong) == (REACH["moments"], REACH["wrong"]))
    parts = {
        f"at most {REACH['missed']:.0%} missed": one.missed[1] <= REACH["missed"] * one.calls,
        f"at most {REACH['hurt']:.0%} hurt": one.hurt <= REACH["hurt"] * one.users,
        "no more near misses of others wake": one.near[1] <= one.near[0],
    }
    hours = max((each.hours for each in one.speech), default=0.0)
    if hours >= LEAST_HOURS:
        parts["no more speech wakes"] = all(each.mean <= each.base for each in one.speech)
    said = [f"{part}: {'met' if good else 'MISSED'}" for part, good in parts.items()]
    said += [] if hours >= LEAST_HOURS else [f"no more speech wakes: not shown ({hours:.2f} h)"]
    print(f"\nreach, {REACH['moments']} moments, {REACH['wrong']:.0%} wrong: " + "; ".join(said))
    return all(parts.values())


def _print_users(found: Sequence[Summary], among: World) -> None:
    print(
        "\nmoments wrong | calls missed: base, adapted (95%)   | with an adapter, hurt (95%)  "
        "| near misses that wake: own, others'"
    )
    for each in found:
        low, high = share_limits(each.missed[1], each.calls)
        worst = share_limits(each.hurt, each.users)
        calls = (
            f"{each.missed[0] / each.calls:6.1%} {each.missed[1] / each.calls:7.1%} ({low:.1%} to {high:.1%})"
        )
        hurt = f"{each.opened}/{each.users}, {each.hurt} (0 to {worst[1]:.0%})" if not each.hurt else (
            f"{each.opened}/{each.users}, {each.hurt} ({worst[0]:.0%} to {worst[1]:.0%})")  # fmt: skip
        own, others = (
            " → ".join(f"{count / of:.1%}" for count in pair)
            for pair, of in ((each.own_near, each.said), (each.near, len(among.near)))
        )
        print(f"{each.moments:7d} {each.wrong:5.0%} | {calls:36s}| {hurt:29s}| {own}, {others}")


def _print_speech(found: Sequence[Summary]) -> None:
    """Print false wakes an hour by whose speech; under `LEAST_HOURS` in all, counts alone."""
    print(
        "\nfalse wakes an hour (95%) in speech of: the base, the adapters' mean; their difference, "
        "and the most wakes of one adapter"
    )
    for each in found:
        enough = max((one.hours for one in each.speech), default=0.0) >= LEAST_HOURS
        for one in each.speech:
            base, mean = (_rate(wakes, one.hours) for wakes in (one.base, one.mean))
            low, high = one.difference
            rates = f"{base} → {mean}; {low:+.2f} to {high:+.2f}" if enough else "an hour: not shown"
            print(
                f"{each.moments:7d} {each.wrong:5.0%} | {one.whose:9s} {one.hours:5.2f} h | {rates} | "
                f"{one.base} → {one.mean:.1f}, {one.most}"
            )
    if not any(each.speech for each in found):
        print("not shown: no speech (--speech, --synthetic), or no adapter")


def _rate(events: float, hours: float) -> str:
    low, high = rate_limits(events, hours)
    return f"{events / hours:.2f} ({low:.2f} to {high:.2f})"


def _print_attacks(found: Sequence[Outcome], others: int) -> None:
    print(
        "\nattack                              held by   | adapters | calls missed  "
        "| near misses that wake: own, others' | refused"
    )
    for each in found:
        before, after = [of.base for of in each.rows], [of.after for of in each.rows]
        calls, near = sum(of.calls for of in each.rows), sum(of.near for of in each.rows)
        missed, own, public = (
            " → ".join(f"{sum(getattr(of, name) for of in some) / total:.1%}" for some in (before, after))
            for name, total in (("missed", calls), ("own_near", near), ("near", others * len(each.rows)))
        )
        refused = ", ".join(f"{count} {why.name}" for why, count in sorted(Counter(each.refusals).items()))
        adapters = f"{each.opened}/{len(each.rows)}"
        what = f"{each.attack:36s}{each.limit:10s}| {adapters:9s}| {missed:14s}"
        print(f"{what}| {own}, {public} | {refused or 'none'}")
    print(
        f"\nreverted in shadow, within {WINDOW} and within {ACTING} moments that act "
        f"(by a sign test of the last {WINDOW} after each moment)"
    )
    for each in found:
        worse, no_worse = (
            _reverted([of for of in each.watched if of.worse == which]) for which in (True, False)
        )
        print(f"{each.attack:36s}{each.limit:10s}| worse {worse:36s}| no worse {no_worse}")


def _reverted(found: Sequence[Watched]) -> str:
    """Say how many adapters there are, and which share of their draws is reverted by when."""
    if not found:
        return "0"
    draws = [[at for of in found for at in of.reverted], [at for of in found for at in of.by_sign_test]]
    one, other = (
        ", ".join(f"{np.mean([at <= by for at in some]):.0%}" for by in (0, WINDOW, ACTING)) for some in draws
    )
    return f"{len(found)}: {one} ({other})"


def _print_cost(among: World) -> None:
    """Print what learning and a frame cost, beside the base in this run."""
    wakes = next(iter(among.voices.values())).wakes[:10]
    others = [each.peak(AROUND) for each in (*among.anchors.human, *among.anchors.near)]
    repeats = 5
    began = time.process_time()
    for _ in range(repeats):
        step = fit([each.peak(AROUND) for each in wakes], others)
    fitted = time.process_time()
    for _ in range(repeats):
        learn(wakes, [], among.anchors, among.limit)
    learned = time.process_time()
    tracemalloc.start()
    learn(wakes, [], among.anchors, among.limit)
    memory = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    head = shipped_head("okay_nabu")
    heads = {"base": head, "adapted": adapted(head, step, among.limit + MARGIN, "personal")}
    print(
        f"\n10 moments: a fit {1000 * (fitted - began) / repeats:.1f} ms of CPU, with gate and threshold "
        f"{1000 * (learned - fitted) / repeats:.1f} ms and {memory:.1f} MB of memory; a frame of 80 ms: "
        + ", ".join(f"{name} {_frame_ms(EmbeddingDetector(each)):.2f} ms" for name, each in heads.items())
    )


def _frame_ms(detector: EmbeddingDetector) -> float:
    sound = np.random.default_rng(1).normal(0, 3000, 10 * SAMPLE_RATE).astype(np.int16)
    began = time.process_time()
    detector.feed(sound)
    return 1000 * (time.process_time() - began) * EMBEDDING_HOP / sound.size


def _print_people(found: Sequence[Drawn]) -> None:
    print("\npeople saying alexa, no speaker known: an adapter of so many recordings, on the others")
    for each in found:
        calls = each.calls // each.draws
        low, high = share_limits(round(each.missed / each.draws), calls)
        missed = f"{each.missed_before / each.calls:.1%} → {each.missed / each.calls:.1%}"
        near = f"{each.near_before / each.near:.1%} → {each.near_after / each.near:.1%}"
        human = f"{each.human_before / each.draws:.0f} → {each.human_after / each.draws:.2f}"
        print(
            f"{each.moments:7d} | missed {missed} ({low:.1%} to {high:.1%} of {calls}) | "
            f"{each.opened}/{each.draws} adapters | near misses that wake {near} | "
            f"human speech {human} in {each.hours:.2f} h"
        )


if __name__ == "__main__":
    raise SystemExit(main())

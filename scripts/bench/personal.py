"""What an adapter learned on the device gains its owner, and what it costs everybody else.

    python -m scripts.bench.personal [--users 27] [--human DIR] [--sounds DIR] [--cache FILE] [--json FILE]
    python -m scripts.bench.personal --choose

Synthetic speakers that trained nothing, in the accents that the base hears worst: each says the wake word
often; some takes are what the device learns from, and the rest is measured. Wrong labels are near misses that
the device takes for the wake word. Every adapter is at the threshold that `clients.personal` sets on anchors
which the fit has not seen. Calls, near misses and human speech that are counted are in no anchor set, nor are
the phrases of the near misses. Beside it stands the base at its own threshold. Limits are exact, 95% (Clopper
& Pearson 1934; Garwood 1936 for rates an hour).

`--choose` measures other constants of the method, on development speakers alone. `--human` is a folder of
recordings of people saying "alexa", `--sounds` Debian's folder of asterisk-core-sounds, in as many languages
as are there; a rate an hour is claimed from 20 hours of it on.
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
from scripts.bench.personal_voices.measure import (
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

USERS: Final = 27
POSITIVES: Final = (3, 5, 10, 20)
WRONG: Final = (0.0, 0.1, 0.2)
REACH: Final = {"moments": 10, "wrong": 0.1, "missed": 0.07, "hurt": 0.03}


@dataclass(frozen=True, slots=True)
class Summary:
    """All users at one number of moments and share of wrong labels: pairs are the base's and the adapters'.

    Attributes:
        opened, hurt: users with an adapter, and users who are missed more than 3 points more.
        missed: of `calls`. own_near: of `said` near misses of the users' voices that wake.
        near, human: of others' near misses and segments of human speech, a user's mean. most: of one user.
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
    human: tuple[float, float]
    most: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Speak, learn, measure, print. 1 where the reach is missed."""
    given = _parser().parse_args(arguments)
    require_speech()
    group: Set = "development" if given.choose else "users"
    among = world(group, LEARNED + given.takes, given.anchors, given.sounds, given.cache, given.users)
    print(
        f"{len(among.voices)} {group} speakers, anchors of {len(among.anchors.human)} + "
        f"{len(among.anchors.near)} windows; measured on {len(among.near)} near misses of others and "
        f"{among.hours:.2f} h of human speech"
    )
    if given.choose:
        choose(among)
        return 0
    found = [summary(among, count, share) for share in WRONG for count in POSITIVES]
    _print_users(found, among)
    _print_human(found, among)
    _print_attacks(list(attacks(among)), len(among.near))
    _print_cost(among)
    if given.human is None or not any(given.human.glob("*.flac")):
        print("\npeople: skipped; --human DIR with .flac recordings of people saying alexa is not there")
    else:
        _print_people(people(given.human, given.sounds, given.cache, given.anchors, POSITIVES))
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n", "utf-8")
    return 0 if _reached(found, among) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--takes", type=int, default=TAKES - LEARNED, help="wake words measured, a user")
    parser.add_argument("--anchors", type=int, default=100, help="windows of each kind in the anchor set")
    parser.add_argument("--sounds", type=Path, default=HUMAN_SPEECH.parent, help="recorded human speech")
    parser.add_argument("--human", type=Path, help="a folder of recordings of people saying alexa")
    parser.add_argument("--cache", type=Path, help="embeddings of earlier runs (.npz), read and written")
    parser.add_argument("--choose", action="store_true", help="other constants, on development speakers")
    parser.add_argument("--json", type=Path, help="write the users' figures there")
    return parser


def summary(among: World, count: int, share: float) -> Summary:
    """Return what users have at so many moments, a share of them wrong."""
    found = list(rows(among, count, share))
    before, after = [each.base for each in found], [each.after for each in found]
    return Summary(
        moments=count,
        wrong=share,
        users=len(found),
        opened=sum(isinstance(each.found, Candidate) for each in found),
        hurt=sum(each.hurt for each in found),
        calls=sum(each.calls for each in found),
        missed=(sum(each.missed for each in before), sum(each.missed for each in after)),
        said=sum(each.near for each in found),
        own_near=(sum(each.own_near for each in before), sum(each.own_near for each in after)),
        near=(float(np.mean([each.near for each in before])), float(np.mean([each.near for each in after]))),
        human=(
            float(np.mean([each.human for each in before])),
            float(np.mean([each.human for each in after])),
        ),
        most=max(each.human for each in after),
    )


def _reached(found: Sequence[Summary], among: World) -> bool:
    """Print whether the reach is met, part by part. What human speech is too short to show is not judged."""
    (one,) = (each for each in found if (each.moments, each.wrong) == (REACH["moments"], REACH["wrong"]))
    parts = {
        f"at most {REACH['missed']:.0%} missed": one.missed[1] <= REACH["missed"] * one.calls,
        f"at most {REACH['hurt']:.0%} hurt": one.hurt <= REACH["hurt"] * one.users,
        "no more near misses of others wake": one.near[1] <= one.near[0],
    }
    long_enough = among.hours >= LEAST_HOURS
    if long_enough:
        parts["no more human speech wakes"] = one.human[1] <= one.human[0]
    said = [f"{part}: {'met' if good else 'MISSED'}" for part, good in parts.items()]
    said += [] if long_enough else [f"no more human speech wakes: not shown ({among.hours:.2f} h)"]
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


def _print_human(found: Sequence[Summary], among: World) -> None:
    print(
        f"\nfalse wakes in {among.hours:.2f} h of human speech: base, adapters on average (the most of one)"
    )
    for each in found:
        base, mean = each.human
        low, high = rate_limits(mean, among.hours)
        rate = f"{mean / among.hours:.1f} an hour ({low:.1f} to {high:.1f})"
        said = rate if among.hours >= LEAST_HOURS else f"an hour: not shown ({among.hours:.2f} h)"
        print(f"{each.moments:7d} {each.wrong:5.0%} | {base:.0f} → {mean:.2f} ({each.most}); {said}")


def _print_attacks(found: Sequence[Outcome], others: int) -> None:
    print(
        "\nattack                              held by   | adapters, reverted | calls missed  "
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
        adapters = f"{each.opened}/{len(each.rows)}, {each.reverted}"
        what = f"{each.attack:36s}{each.limit:10s}| {adapters:19s}| {missed:14s}"
        print(f"{what}| {own}, {public} | {refused or 'none'}")


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

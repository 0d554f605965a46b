"""What training from many devices gains speakers who are heard badly, what it costs, and what attackers can
do.

    python -m scripts.bench.training [--devices 500,2000,10000] [--epsilon 1,2,4,8] [--repeats 5]
        [--cache FILE] [--sounds DIR] [--human DIR]
    python -m scripts.bench.training --attacks [--attackers 0.01,0.05,0.2]
    python -m scripts.bench.training --choose
    python -m scripts.bench.training --devices 2000 --write DIR

Synthetic speakers, in sets that share no voice: `fleet` are the devices' owners; public speech is of
`development`, the wake word in the accents alone that the base was trained with; everything is measured on
`test`, with phrases that nothing else says. A device has an accent (by its share of a fleet) and one of its
voices, and three to five moments. Vectors, noise and the step are those of a release: plan, layout,
`clients.evaluate`, shares of the noise of each device, `fa_core.training`. Beside it: the same without noise,
*pooled*, where the server has every clip of the owners, *fitted on the test clips*, which is what an adapter
can do at all, and Flower's own FedAvg with its differential privacy (`training_rounds/flower.py`). Limits are
95%: speakers drawn again (bootstrap) for means and near misses, Clopper and Pearson for es-en, which takes
its 100 clips, of five speakers, as independent, and Garwood for rates an hour. A row is a mean over rounds
with devices and noise of their own; Flower's is of one. The last columns set each head's threshold on the
measured near misses and human speech, where no more wake than with the base: they compare heads, and no
server can set it there. Constants are chosen on `users` (`--choose`), on none
of the test clips.

`--human` is a folder of recordings of people saying "alexa", `--sounds` Debian's folder of
asterisk-core-sounds, in as many languages as are there.
"""

import argparse
import json
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clients.evaluate import device_vectors
from clients.fleet.audio import HUMAN_SPEECH
from fa_core.layout import compile_plan
from fa_core.metrics import exact_text
from fa_core.tables import MOMENTS
from fa_core.training.step import PENALTY, blocks_of
from scripts.bench.personal_voices.measure import LEAST_HOURS, rate_limits, share_limits
from scripts.bench.training_rounds.attacks import Outcome, attacks, seen, title
from scripts.bench.training_rounds.flower import STEPS, Spent, Way, flower
from scripts.bench.training_rounds.people import AN_HOUR, people, rows
from scripts.bench.training_rounds.rounds import (
    SHARES,
    UNTIL,
    WORST,
    Measured,
    Setting,
    averaged,
    draw,
    measure,
    plan_for,
    released,
)
from scripts.bench.training_rounds.voices import LABELS, Voices, voices

PERSONAL: Final = Fraction(4)
DRAWS: Final = 20
"""How often the recordings of people are drawn that are devices'."""
HEAD: Final = (
    f"{'':34s} | {'mean':22s} | {'es-en':22s} | {'worst accent':16s} | {'near misses':22s} | worst head | "
    f"{'human speech, an hour':21s} | at the base's false accepts: mean, es-en"
)


def row(
    setting: Setting, devices: int, epsilon: Fraction | None, seed: int, penalty: float = PENALTY
) -> tuple[Measured, float]:
    """Return what one round comes to, and the CPU seconds of the server's step; on `users` for a penalty that
    is not the step's own."""
    fleet = draw(setting.speech, devices, np.random.default_rng(seed))
    plan = plan_for(epsilon or PERSONAL, fleet.clip(setting.center), setting.center, setting.base)
    release = released(plan, fleet, setting.base, noise=epsilon is not None)
    began = time.process_time()
    heads = setting.heads(plan, blocks_of(release), penalty)
    spent = time.process_time() - began
    return measure(heads, setting.speech, setting.limit, "test" if penalty == PENALTY else "users"), spent


def flower_row(
    setting: Setting, devices: int, epsilon: Fraction | None, seed: int, way: Way
) -> tuple[Measured, Spent]:
    """Return what Flower's own strategy comes to over the devices of `row`, and its cost."""
    fleet = draw(setting.speech, devices, np.random.default_rng(seed))
    heads, spent = flower(setting, fleet, epsilon, way)
    return measure(heads, setting.speech, setting.limit), spent


def line(name: str, found: Measured) -> str:
    """Return a row of a table."""
    es, rejects = found.missed[WORST], found.rejects
    worst, human = int(rejects.argmax()), float(found.human.sum())
    low, high = rate_limits(human, found.hours)
    return (
        f"{name:34s} | {_share(found.mean, found.mean_limits()):22s} | "
        f"{_share(es.mean(), share_limits(round(es.sum()), len(es))):22s} | "
        f"{rejects[worst]:6.1%} {LABELS[worst]:9s} | {_share(found.near.mean(), found.near_limits()):22s} | "
        f"{found.near_by_head.max():10.1%} | "
        f"{f'{human / found.hours:.1f} ({low:.1f} to {high:.1f})':21s} | "
        f"{SHARES @ found.equal_rejects:6.1%} {found.equal_rejects[WORST]:6.1%}"
    )


def _share(value: float, limits: tuple[float, float]) -> str:
    return f"{value:.1%} ({limits[0]:.1%} to {limits[1]:.1%})"


def accuracy(setting: Setting, sizes: Sequence[int], epsilons: Sequence[Fraction], repeats: int) -> None:
    """Print false reject rates and what else wakes, by size of the fleet and epsilon."""
    base = measure(setting.base_heads(), setting.speech, setting.limit)
    pooled = measure(setting.pooled(), setting.speech, setting.limit)
    fitted = measure(setting.fitted_on_test(), setting.speech, setting.limit)
    print(HEAD)
    for name, measured in (("base", base), ("pooled", pooled), ("fitted on the test clips", fitted)):
        print(line(name, measured))
    for devices in sizes:
        of: list[Measured] = []
        for epsilon in (None, *epsilons):
            found, spent = zip(
                *(row(setting, devices, epsilon, seed) for seed in range(repeats)), strict=True
            )
            of.append(averaged(found))
            ends = f" | {np.mean(spent):.1f} s" if repeats else ""
            print(line(f"{devices:,} devices, {_noise(epsilon)}", of[-1]) + ends, flush=True)
        left(devices, base, of[-1], pooled, fitted)
    print(f"human speech: {base.hours:.2f} h; under {LEAST_HOURS:.0f} h nothing is claimed of false accepts")


def _noise(epsilon: Fraction | None) -> str:
    return "no noise" if epsilon is None else f"epsilon {exact_text(epsilon)}"


def left(devices: int, *found: Measured) -> None:
    """Print what each kind of voice adds to the mean, in points, of all speakers of all accents."""
    kinds = dict.fromkeys("+" + voice.partition("+")[2] for each in found[0].voices for voice in each)
    print(f"  of the mean at {devices:,} devices, points by espeak-ng variant: base, after, pooled, fitted")
    for kind in kinds:
        parts = [
            sum(
                share * (missed * [voice.endswith(kind) for voice in names]).sum() / len(names)
                for share, missed, names in zip(SHARES, each.missed, each.voices, strict=True)
            )
            for each in found
        ]
        print(f"  {kind:12s} " + " ".join(f"{100 * part:6.2f}" for part in parts))


def beside(setting: Setting, sizes: Sequence[int], epsilons: Sequence[Fraction]) -> None:
    """Print Flower's own FedAvg with differential privacy over the same fleets, and what it costs."""
    print(f"Flower's FedAvg with server-side fixed clipping, {Way().rounds} rounds of {STEPS} steps")
    for way in (Way(by_accent=True), Way()):
        for devices in sizes:
            for epsilon in (None, *epsilons):
                found, spent = flower_row(setting, devices, epsilon, 0, way)
                name = f"{'13 models' if way.by_accent else 'one model'}, {devices:,}, {_noise(epsilon)}"
                cost = f"{spent.server:.1f} s, {1000 * spent.device:.1f} ms, {spent.size:,} bytes"
                print(f"{line(name, found)} | {cost}", flush=True)


def costs(setting: Setting) -> None:
    """Print what a round costs a device."""
    fleet = draw(setting.speech, 1, np.random.default_rng(0))
    plan = plan_for(PERSONAL, 1.0, setting.center, setting.base)
    layout, cohort = compile_plan(plan), fleet.cohort(setting.base)
    began, times = time.process_time(), 50
    for _ in range(times):
        device_vectors(plan, layout, cohort, UNTIL)
    spent = 1000 * (time.process_time() - began) / times
    size = layout.length * layout.modulus_bits // 8
    print(f"one round; a device's vector has {size:,} bytes and takes {spent:.1f} ms of CPU")


def attack_table(setting: Setting, devices: int, shares: Sequence[float]) -> None:
    """Print what attackers achieve, and what notices it."""
    print(title(devices, PERSONAL))
    print(f"{'':34s} |   mean  es-en | phrase  es-en | near misses | held by | with no release before")
    for name, found in attacks(setting, devices, PERSONAL, shares):
        print(_attack_line(name, found), flush=True)


def _attack_line(name: str, found: Outcome) -> str:
    measured, phrase = found.measured, found.phrase
    return (
        f"{name:34s} | {measured.mean:6.1%} {measured.rejects[WORST]:6.1%} | "
        f"{phrase[0]:6.1%} {phrase[1]:6.1%} | {measured.near.mean():11.1%} | "
        f"{seen(found.alarms)} | {seen(found.first)}"
    )


def human(folder: Path | None, sounds: Path, cached: Path | None) -> None:
    """Print what one round gains people who say "alexa", where recordings of them are there."""
    if folder is None or not any(folder.glob("*.flac")):
        print("people: skipped, no recordings (--human FOLDER of .flac); nothing is shown of real speakers")
        return
    among = people(folder, sounds, cached)
    calls = len(among.calls) - len(among.calls) // 2
    hours = len(among.human) * 8 / 3600
    print(
        f"people: {len(among.calls)} recordings, {calls} of them measured, mean of {DRAWS} draws "
        f"(least, most); {hours:.2f} h of human speech, {len(among.near)} near misses"
    )
    print(f"{'':34s} | missed at the public threshold | human an hour | near | at {AN_HOUR:g} an hour")
    for name, each in rows(among, 500, PERSONAL, DRAWS):
        low, high = rate_limits(each.human, hours)
        print(
            f"{name:34s} | {_share(each.missed, each.spread):30s} | {each.human / hours:.1f} "
            f"({low:.1f} to {high:.1f}) | {each.near / len(among.near):.1%} | {each.equal:.1%}",
            flush=True,
        )


def write(setting: Setting, folder: Path, devices: int) -> None:
    """Write public speech and a fleet directory with moments, to try `fa train` on."""
    folder.mkdir(parents=True)
    setting.public.save(folder / "public.npz")
    fleet = draw(setting.speech, devices, np.random.default_rng(0))
    ids = [f"d{number:06d}" for number in range(devices)]
    facts = {"device_class": ["speaker"] * devices, "app_version": ["1"] * devices}
    accents = [LABELS[accent] for accent in fleet.accents]
    pq.write_table(pa.table({"device_id": ids, "accent": accents, **facts}), folder / "devices.parquet")
    cohort = fleet.cohort(setting.base)
    owner = np.repeat(ids, np.diff(cohort.offsets["moments"]))
    moments = cohort.tables["moments"].add_column(0, "device_id", pa.array(owner).dictionary_encode())
    pq.write_table(moments.cast(MOMENTS.arrow_schema(device_id=True)), folder / "moments.parquet")
    about = {"population": "bench", "until": UNTIL.isoformat(), "synthetic": True}
    (folder / "fleet.json").write_text(json.dumps(about))


def choose(setting: Setting) -> None:
    """Print what constants were chosen by: speakers that neither train nor are measured."""
    print(HEAD)
    print(line("base", measure(setting.base_heads(), setting.speech, setting.limit, "users")))
    for penalty in (0.3, 0.1, 0.05, 0.0200001, 0.01):
        found = [row(setting, 2000, PERSONAL, seed, penalty)[0] for seed in range(2)]
        print(line(f"penalty {penalty:.3g}", averaged(found)), flush=True)
    fleet = draw(setting.speech, 2000, np.random.default_rng(0))
    for rate in (0.1, 0.5):
        for by_accent in (False, True):
            way = Way(rate=rate, by_accent=by_accent)
            measured = measure(
                flower(setting, fleet, PERSONAL, way)[0], setting.speech, setting.limit, "users"
            )
            print(line(f"Flower, rate {rate:g}{', 13 models' * by_accent}", measured), flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Speak, train, measure, print."""
    given = _parser().parse_args(arguments)
    said: Voices = voices(given.sounds, given.cache)
    setting = Setting.of(said)
    sizes, epsilons = (text.split(",") for text in (given.devices, given.epsilon))
    if given.write is not None:
        write(setting, given.write, int(sizes[0]))
    elif given.choose:
        choose(setting)
    elif given.attacks:
        attack_table(setting, int(sizes[-1]), [float(each) for each in given.attackers.split(",")])
    else:
        counts, costing = list(map(int, sizes)), list(map(Fraction, epsilons))
        accuracy(setting, counts, costing, given.repeats)
        costs(setting)
        beside(setting, counts, costing)
        human(given.human, given.sounds, given.cache)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", default="500,2000,10000")
    parser.add_argument("--epsilon", default="1,2,4,8")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cache", type=Path, help="embeddings of what was said (.npz), made where missing")
    parser.add_argument("--sounds", type=Path, default=HUMAN_SPEECH.parent, help="recorded human speech")
    parser.add_argument("--human", type=Path, help="recordings of people saying alexa, .flac")
    parser.add_argument("--write", type=Path, help="write a fleet of so many devices and public speech here")
    parser.add_argument("--attacks", action="store_true")
    parser.add_argument("--attackers", default="0.01,0.05,0.2", help="shares of the devices that collude")
    parser.add_argument("--choose", action="store_true", help="choose constants, on users' speech")
    return parser


if __name__ == "__main__":
    main()

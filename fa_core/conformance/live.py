"""A whole round on this machine: a foreign device among five of ours, with what a server must not do."""

import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.stats import chi2

from clients.device.counting import count
from fa_core.conformance.adapter import Device, Json, Row
from fa_core.conformance.cohort import NODE, Cohort, Invited, Keys, Step
from fa_core.conformance.faults import faults
from fa_core.conformance.rows import arrow_tables
from fa_core.conformance.table import Table
from fa_core.conformance.vectors import asked
from fa_core.conformance.world import NOW, POPULATION, Asked, World, plan_of, question, raw, seconds
from fa_core.layout import compile_plan
from fa_core.plan import Plan
from fa_core.privacy.distributed import shares_of
from fa_core.secagg import Stage, messages
from fa_core.secagg.identity import Record
from fa_core.secagg.opened_secret import opened
from fa_core.trust.witness import Witness
from fa_core.values import Int64Array
from fa_core.wire.invitation import Invitation, encode

DEVICES: Final = 6
LOST: Final = DEVICES - 1
"""Who of the others joins and deals no shares."""

FAR: Final = 12.0
"""Standard deviations of a device's noise beyond which a cell is not its count: exceeded with probability
e^-72."""

CHANCE: Final = 1e-7
"""How often noise of the right variance is taken for too little, and for too much."""

FACTS: Final = {"accent": "en-GB"}


def rows_of_a_device() -> dict[str, list[dict[str, Any]]]:
    """Return rows below every limit of the plan, so that no draw decides what is counted."""
    hour = 3_600_000_000
    start = seconds(NOW) * 1_000_000 - 10 * hour
    events = [
        {
            "time": start + number * hour // 3, "wake_word": "okay_nabu", "model_version": "micro-1",
            "score": number / 10, "accepted": number % 3 != 0,
            "outcome": "true_accept" if number % 3 else "false_reject", "label_source": "follow_up",
            "snr_db": None if number % 2 else 12.5, "playback": number % 4 == 0,
        }
        for number in range(10)
    ]  # fmt: skip
    listening = [
        {
            "time": start - start % hour, "wake_word": "okay_nabu", "model_version": "micro-1",
            "snr_db": 10.0, "playback": playback, "minutes": 30 - 10 * playback,
        }
        for playback in (False, True)
    ]  # fmt: skip
    return {"wake_events": events, "listening": listening}


def run(device: Device) -> Iterator[Row]:
    """Yield a row for each thing that is tried."""
    world, other = World(), World()
    plan = plan_of()
    identities = [world.authority.enrol(POPULATION) for _ in range(DEVICES + 1)]
    keys = Keys(world.authority, world.witness_key, POPULATION, identities[:-1], identities[-1])
    rows = rows_of_a_device()
    opening = _opening(world, keys, rows)
    with tempfile.TemporaryDirectory() as journal:
        witness = Witness(
            world.witness_key, world.authority.public_key, Path(journal), raw(world.log_key), lambda: NOW
        )
        first = list(_complaint(device, world, keys, witness, plan, opening))
        yield from first
        if first[0].outcome != "passed":
            yield Row("a whole round", "a device is opened", first[0].outcome, first[0].detail)
            return
        yield from _round(device, world, keys, witness, plan, other)


def _opening(world: World, keys: Keys, rows: dict[str, list[dict[str, Any]]]) -> Json:
    """Return the question that opens the device: its keys, what it trusts and what it holds."""
    identity = keys.identities[NODE]
    return {
        "op": "open",
        "identity": identity.key.private_bytes_raw().hex(),
        "certificate": identity.certificate.hex(),
        "pins": world.pins(),
        "seen": {"size": 0, "root": "", "latest": None, "first": None},
        "revision": 0,
        "now": seconds(NOW),
        "min_cohort": 3,
        "tables": rows,
        "facts": FACTS,
    }


def _invite(world: World, plan: Plan, attempt: int) -> tuple[Asked, Invitation]:
    asked_for = Asked.of(plan)
    asked_for = Asked(asked_for.plan, asked_for.row, attempt=attempt)
    return asked_for, world.invite(asked_for)


def _complaint(
    device: Device, world: World, keys: Keys, witness: Witness, plan: Plan, opening: Json
) -> Iterator[Row]:
    table = Table("a complaint", device)
    outcome, detail = asked(device, opening, {"opened": True})
    yield Row(table.part, "a device is opened", outcome, detail)
    if outcome != "passed":
        return
    _, invitation = _invite(world, plan, 0)
    task = messages.read_join_request(invitation.request)
    cohort = Cohort(
        task, keys, witness, invitation.charge_proof.encode(), invited=Invited(encode(invitation), ())
    )

    def complain() -> None:
        proof = cohort.complain(table.ask)
        assert cohort.shares is not None
        own, accused = (Record.decode(each) for each in cohort.accuser_and_accused())
        roster_hash = cohort.shares.roster.hash(task)
        held = opened(own.share_key, accused.share_key, roster_hash, proof) is not None
        table.add("dispute: the opening proves the secret", "" if held else "it proves nothing")

    table.over(complain)
    yield from table.rows


def _round(
    device: Device, world: World, keys: Keys, witness: Witness, plan: Plan, other: World
) -> Iterator[Row]:
    """The next attempt, to its end."""
    table = Table("a whole round", device)
    _, invitation = _invite(world, plan, 1)
    task = messages.read_join_request(invitation.request)
    plain = question(world, b"")
    declined = [
        Step(
            f"join: {fault.name}",
            Stage.JOIN,
            bytes.fromhex(fault.ask["invitation"]),
            {"refused": fault.reason},
        )
        for fault in faults(world, plan, other)
        if fault.reason and {**fault.ask, "invitation": ""} == {**plain, "invitation": ""}
    ]
    cohort = Cohort(
        task,
        keys,
        witness,
        invitation.charge_proof.encode(),
        {Stage.SHARES: {LOST}},
        Invited(encode(invitation), declined),
    )

    def play() -> None:
        cohort.play(table.ask)
        for name, wrong in _sum_of(plan, cohort):
            table.add(name, wrong)
        for name, found in _afterwards(world, plan):
            table.ask(Step(f"afterwards: {name}", Stage.JOIN, encode(found), {"refused": "WINDOW"}))

    table.over(play)
    yield from table.rows


def _sum_of(plan: Plan, cohort: Cohort) -> Iterator[tuple[str, str]]:
    """Yield what was checked of the sum, which is of this device alone, and what is wrong with it."""
    layout = compile_plan(plan)
    shares = shares_of(layout, DEVICES, plan.privacy.dropout, plan.privacy.corrupt)
    counts = count(plan, layout, arrow_tables(rows_of_a_device()), FACTS, NOW)
    noise = _in_deviations(cohort.result.total, counts, layout.blocks, shares)
    far = np.abs(noise) > FAR
    where = next((b for b in layout.blocks if far[b.slice].any()), None)
    text = (
        ""
        if where is None
        else f"{where.part} of {where.metric} {list(where.grouping)} is not what was counted"
    )
    yield "the sum: the counts by their factors", text
    squares = float((noise**2).sum())
    low, high = chi2.ppf([CHANCE, 1 - CHANCE], layout.length)
    held = low <= squares <= high
    ratio = squares / layout.length
    yield "the sum: its noise", "" if held else f"its variance is {ratio:.3g} times what it should be"


def _in_deviations(total: Int64Array, counts: Int64Array, blocks: Any, shares: Any) -> "np.ndarray[Any, Any]":
    noise = np.empty(len(counts))
    for block, share in zip(blocks, shares, strict=True):
        noise[block.slice] = (total[block.slice] - share.scale * counts[block.slice]) / share.sigma
    return noise


def _afterwards(world: World, plan: Plan) -> Iterator[tuple[str, Invitation]]:
    """Yield invitations that a device must decline once its masked vector has left."""
    yield "the next attempt at the release", _invite(world, plan, 2)[1]
    yield "an earlier attempt at the release", _invite(world, plan, 0)[1]
    yield "the same window in another release", world.invite(Asked.of(plan, release=bytes(range(16, 32))))
    text = {"revision: 3": "revision: 4", "epsilon: 2": f"epsilon: {float(Fraction(3, 2))}"}
    newer = plan_of(changes=text)
    yield "the same window in a newer revision", world.invite(Asked.of(newer, release=bytes(range(32, 48))))

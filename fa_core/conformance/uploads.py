"""A collection on this machine: a foreign device is offered what it must decline, then uploads its report.

A leader and a helper in this process verify the report, and add it up: the sum must be what was counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from secrets import token_bytes
from typing import Final

import numpy as np

from clients.device.counting import count
from fa_core.collection.refusal import RefusedReport
from fa_core.collection.report import Report, check_sender, open_share, read_withdrawal
from fa_core.collection.task import Task
from fa_core.conformance.adapter import Device, Json, Row
from fa_core.conformance.cohort import Step
from fa_core.conformance.live import FACTS, rows_of_a_device
from fa_core.conformance.offers import CLOSES, Keys, Offers, faults
from fa_core.conformance.rows import arrow_tables
from fa_core.conformance.table import Table
from fa_core.conformance.vectors import asked
from fa_core.conformance.world import NOW, POPULATION, World, plan_of, seconds
from fa_core.layout import compile_plan
from fa_core.plan import Plan
from fa_core.prio.blocks import prio, spread
from fa_core.prio.prio3 import HELPER, LEADER, Finished, Input, Prio3
from fa_core.secagg.identity import DeviceIdentity
from fa_core.values import Int64Array

PART: Final = "a collection"
MIN_KAPPA: Final = "1/4"


@cache
def plans() -> tuple[Plan, Plan, Plan]:
    """Return the plan that is reported on, one of four stages, and one with a kappa of 1/8."""
    sum_mode, name = "min_cohort: 3", "name: conformance"
    summed = {sum_mode: f"{sum_mode}, sum: two_aggregators"}
    meagre = {sum_mode: f"{summed[sum_mode]}, kappa: 0.125", name: "name: meagre"}
    return plan_of(changes=summed), plan_of(changes={name: "name: in-stages"}), plan_of(changes=meagre)


@dataclass(frozen=True)
class Verified:
    """What leader and helper found of a report.

    Attributes:
        wrong: by the name of each check what is wrong, "" for nothing.
        vector: what the report adds to the plan's vector, int64 (cells,); zeros where it is refused.
    """

    wrong: Mapping[str, str]
    vector: Int64Array


def verified(data: bytes, plan: Plan, task: Task, keys: Keys, authority: bytes) -> Verified:
    """Have a leader and a helper verify a report, each from its own share."""
    system, layout = prio(plan), compile_plan(plan)
    wrong = dict.fromkeys(CHECKS, "")
    nothing = np.zeros(layout.length, np.int64)
    try:
        report = Report.parse(data, system)
    except RefusedReport as refused:
        return Verified(wrong | {SIZE: refused.refusal.words}, nothing)
    try:
        check_sender(task, authority, report.device, report.certificate, report.signature, report.body_hash)
    except RefusedReport as refused:
        wrong[SENDER] = refused.refusal.words
    try:
        key = keys.sealing.private()
        share = open_share(task.id, key, report.id, report.device, report.public, report.box)
    except RefusedReport as refused:
        return Verified(wrong | {BOX: refused.refusal.words}, nothing)
    leader, helper = both(system, task.id, report, share)
    refusal = leader.refused[0] or helper.refused[0]
    if refusal is not None:
        return Verified(wrong | {PROOF: f"refused: {refusal}"}, nothing)
    totals = [np.asarray(spread(plan, each.total)) for each in (leader, helper)]
    return Verified(wrong, system.unshard(totals))


def both(system: Prio3, task: bytes, report: Report, share: bytes) -> tuple[Finished, Finished]:
    """Return what a leader and a helper with a fresh key make of a report and the helper's share of it."""
    key = token_bytes(32)
    leader = system.begin(LEADER, key, task, [Input(report.id, report.public, report.leader)])
    helper = system.begin(HELPER, key, task, [Input(report.id, report.public, share)])
    messages = system.decide(task, leader.verifiers, helper.verifiers)
    return system.finish(leader, messages), system.finish(helper, messages)


SIZE, SENDER, BOX, PROOF = CHECKS = (
    "the report has the size that follows from the plan",
    "a certified device of the population signed the report",
    "the helper opens its box",
    "the proof holds for leader and helper",
)
SUM: Final = "the sum is what was counted"


@dataclass(frozen=True)
class _Tried:
    """The device, and what it is offered."""

    table: Table
    device: Device
    offers: Offers
    identity: DeviceIdentity

    def open(self, rows: Mapping[str, Sequence[Json]]) -> Json:
        """Return the question that opens the device with rows."""
        return {
            "op": "open",
            "identity": self.identity.key.private_bytes_raw().hex(),
            "certificate": self.identity.certificate.hex(),
            "pins": self.offers.pins(),
            "seen": {"size": 0, "root": "", "latest": None, "first": None},
            "revision": 0,
            "now": seconds(NOW),
            "min_cohort": 3,
            "min_kappa": MIN_KAPPA,
            "tables": rows,
            "facts": FACTS,
        }

    def refuses(self, name: str, invitation: bytes) -> None:
        """Ask for a report that must not be given."""
        self.table.ask(Step(name, "report", invitation, {"refused": ""}))

    def reports(self, name: str, invitation: bytes, right: Json | None = None) -> bytes:
        """Ask for a report, and return it; b"" where there is none."""
        answer = self.table.ask(Step(name, "report", invitation, right))
        try:
            return bytes.fromhex(answer["reply"])
        except (KeyError, TypeError, ValueError):
            return b""

    def verify(self, data: bytes, task: Task, counted: Int64Array, prefix: str = "") -> None:
        """Keep a row for each check of a report."""
        world = self.offers.world
        found = verified(data, self.offers.plan, task, self.offers.keys, world.authority.public_key)
        for name, wrong in found.wrong.items():
            self.table.add(prefix + name, wrong)
        away = np.flatnonzero(found.vector != counted)
        blocks = compile_plan(self.offers.plan).blocks
        where = next((b for b in blocks if len(away) and b.slice.start <= away[0] < b.slice.stop), None)
        text = f"{where.part} of {where.metric} {list(where.grouping)} is another" if where else ""
        self.table.add(prefix + SUM, text)


def run(device: Device) -> Iterator[Row]:
    """Yield a row for each thing that is tried."""
    world = World()
    identity = world.authority.enrol(POPULATION)
    tried = _Tried(Table(PART, device), device, Offers(world, Keys(), plans()[0]), identity)
    outcome, detail = asked(device, tried.open(rows_of_a_device()), {"opened": True})
    if outcome == "passed" and asked(device, _probe(), {"refused": "MALFORMED"})[0] == "not supported":
        outcome = "not supported"
    yield Row(PART, "a device is opened", outcome, detail)
    if outcome == "passed":
        tried.table.over(lambda: _collection(tried))
        yield from tried.table.rows


def _probe() -> Json:
    return {"op": "answer", "stage": "report", "request": ""}


def _collection(tried: _Tried) -> None:
    offers = tried.offers
    _, in_stages, meagre = plans()
    for fault in faults(offers, in_stages):
        tried.refuses(fault.name, fault.invitation)
    asked_for = offers.asked(meagre)
    small = offers.invite_to(offers.task(asked_for, meagre), asked_for)
    tried.refuses("a kappa below the device's least", small)
    at_join = offers.invite_to(offers.task(offers.asked()))
    tried.table.ask(Step("join: a plan that two aggregators sum", "join", at_join, {"refused": ""}))

    task = offers.task(offers.asked())
    offer = offers.offer(task.encode())
    right = offers.invite(offers.asked(), *offer)
    report = tried.reports("the right invitation", right)
    tried.verify(report, task, _counted(offers.plan, rows_of_a_device()))
    _again(tried, offer, right, report)
    _taken_back(tried, task, offers.invite(offers.asked(), *offer), report)
    _anew(tried, task, right, report)


def _again(tried: _Tried, offer: tuple[bytes, int], right: bytes, report: bytes) -> None:
    """Ask again for what was reported, and for what must not be reported any more."""
    offers, same = tried.offers, {"reply": report.hex()}
    tried.reports("the same invitation again", right, same)
    offers.entries.append(b"an entry of another day")
    tried.reports("the same task under a newer checkpoint", offers.invite(offers.asked(), *offer), same)
    task = offers.task(offers.asked())
    sooner = replace(task, closes=CLOSES - timedelta(hours=1))
    tried.refuses("a second task for the release", offers.invite_to(sooner))
    resealed = replace(task, sealing=Keys().sealing.public)
    tried.refuses("a second task with another sealing key", offers.invite_to(resealed))
    release = bytes(range(16, 32))
    elsewhere = offers.asked(release=release).paying(release=release.hex())
    tried.refuses("the same window in another release", offers.invite_to(offers.task(elsewhere), elsewhere))
    tried.reports("the same task after all of these", offers.invite(offers.asked(), *offer), same)


def _taken_back(tried: _Tried, task: Task, newest: bytes, report: bytes) -> None:
    """Have the owner's consent end."""
    outcome, detail = asked(tried.device, {"op": "consent", "consent": False}, {"consent": False})
    tried.table.add("the consent ends", detail if outcome == "failed" else "")
    if outcome == "not supported":
        return
    statement = tried.reports("a withdrawal in place of the report", newest)
    try:
        about = read_withdrawal(statement, task, tried.offers.world.authority.public_key)
        wrong = "" if about == (report[:16], tried.identity.device) else "it is about another report"
    except RefusedReport as refused:
        wrong = refused.refusal.words
    tried.table.add("the withdrawal is that of the report", wrong)


def _anew(tried: _Tried, task: Task, right: bytes, report: bytes) -> None:
    """A device that holds no rows, and one that is opened again."""
    asked(tried.device, tried.open({name: [] for name in rows_of_a_device()}), {"opened": True})
    empty = tried.reports("the right invitation, without rows", right)
    nothing = np.zeros(compile_plan(tried.offers.plan).length, np.int64)
    tried.verify(empty, task, nothing, "without rows: ")
    head = slice(0, 16), slice(48, 112)
    drawn = all(report[each] != empty[each] for each in head)
    tried.table.add("another report draws anew", "" if drawn else "id or public share are those of before")


def _counted(plan: Plan, rows: Mapping[str, Sequence[Json]]) -> Int64Array:
    return count(plan, compile_plan(plan), arrow_tables(rows), FACTS, NOW)

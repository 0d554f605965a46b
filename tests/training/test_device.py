"""A device and a training plan: consent, budget, how often, and what the owner's receipt says."""

from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from clients.device.journal import sentence
from clients.device.odometer import Budget
from clients.device.policy import Policy
from clients.device.records import Records
from clients.evaluate import device_vectors
from fa_core.layout import compile_plan
from fa_core.plan import TrainPlan
from fa_core.privacy.accounting import epsilon_for
from fa_core.wire.invitation import encode
from tests.device.setup import NOW as NOON
from tests.device.setup import POLICY, Setup, World, drive, make_setup, plan_of, reason_of
from tests.training import toy

OTHERS = 99
"""Devices that take part besides: no training plan is answered with fewer than 100 in all."""

NOW = NOON.replace(minute=0)


def training(name: str = "toy") -> TrainPlan:
    plan = toy.plan_of(segments="segments: {accent: {device: accent, values: [en-GB]}}")
    return plan.model_copy(update={"metadata": plan.metadata.model_copy(update={"name": name})})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def made(
    folder: Path, world: World, *, consent: bool = True, budget: Budget | None = None, policy: Policy = POLICY
) -> Setup:
    """Make a device with two moments of the toy's base head."""
    settled = budget or Budget(settle=timedelta(0))
    setup = make_setup(folder, world, settled, policy)
    store = setup.store()
    if consent:
        store.grant("personalisation", NOW + timedelta(days=365), NOW)
    rows = [
        {"time": NOW - timedelta(hours=hours), "wake_word": "okay_nabu", "base": "0" * 64,
         "features": toy.towards("there") * hours / 3}
        for hours in (1, 2)
    ]  # fmt: skip
    assert store.record("moments", rows, "personalisation", NOW) == (2 if consent else 0)
    store.close()
    return setup


def joined(setup: Setup, plan: TrainPlan) -> str:
    """Return why a device declines to join a plan, "" if it joins."""
    invitation = setup.world.invite(plan, setup.world.release(), NOW, NOW)
    return reason_of(lambda: setup.device().handle("join", encode(invitation)))


def test_the_store_gives_back_the_moments_that_were_put_in(tmp_path: Path, world: World) -> None:
    setup, plan = made(tmp_path, world), training()
    table = setup.store().table("moments", "personalisation", NOW - timedelta(days=7), NOW)
    cohort = toy.fleet(["here"], [np.zeros((0, 97))], plan)
    stored = replace(cohort, facts={"accent": (np.zeros(1, np.int64), ("en-GB",))}, tables={"moments": table},
                     offsets={"moments": np.array([0, 2])})  # fmt: skip
    (row,) = device_vectors(plan, compile_plan(plan), stored, NOW)
    assert row[2] == 4096 // 4


def test_without_consent_to_personalisation_a_device_stays_out(tmp_path: Path, world: World) -> None:
    assert joined(made(tmp_path, world, consent=False), training()) == "CONSENT"


def test_a_device_that_answers_no_training_declines(tmp_path: Path, world: World) -> None:
    setup = made(tmp_path, world, policy=replace(POLICY, training_rounds_a_week=0))
    assert joined(setup, training()) in {"LIMITS", "TRAINING_LIMIT"}


def test_a_training_plan_has_a_largest_epsilon_of_its_own(tmp_path: Path, world: World) -> None:
    setup = made(tmp_path, world, policy=replace(POLICY, max_epsilon=Fraction(2)))
    assert joined(setup, training()) == ""
    setup.terms = replace(setup.terms, policy=replace(setup.terms.policy, training_epsilon=Fraction(3)))
    assert joined(setup, training()) == "LIMITS"


def test_one_round_is_charged_to_its_own_budget_and_printed(tmp_path: Path, world: World) -> None:
    small = Budget(Fraction(7, 100), settle=timedelta(0))  # a training costs more than evaluation may
    setup, plan = made(tmp_path, world, budget=small), training()
    result, _ = drive(
        world, plan, setup.device(), world.invite(plan, world.release(), NOW, NOW), others=OTHERS
    )
    assert result.total.any()
    store = setup.store()
    records, rho = Records(store), compile_plan(plan).cost
    assert [each.rho for each in records.charges(training=True)] == [rho]
    assert records.charges(training=False) == []
    entry = store.last_entry()
    assert entry is not None
    said = sentence(entry)
    between = epsilon_for(4 * rho, plan.privacy.delta)
    assert f"epsilon {between:.3g}" in said
    assert "8.6" in said
    assert "names its speaker" in said
    # Another in the same week is declined, whatever its name; an evaluation is not, and has its whole budget.
    assert joined(setup, training("another")) == "TRAINING_LIMIT"
    weekly = plan_of(epsilon="2.0", noise="distributed")
    drive(world, weekly, setup.device(), world.invite(weekly, world.release(), NOW, NOW), others=20)
    assert [each.rho for each in records.charges(training=False)] == [compile_plan(weekly).cost]
    setup.time.now += timedelta(days=8)
    later = NOW + timedelta(days=8)
    invitation = world.invite(training("another"), world.release(), later, later)
    assert reason_of(lambda: setup.device().handle("join", encode(invitation))) == ""

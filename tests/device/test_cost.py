"""A device verifies that the rho of a plan implies what the plan states, however well the plan is signed."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from clients.device.records import Records
from fa_core.plan import Plan
from fa_core.wire.invitation import Invitation, encode
from tests.device.setup import NOW, Setup, World, drive, make_setup, plan_of, reason_of


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def setup(tmp_path: Path, world: World) -> Setup:
    return make_setup(tmp_path, world)


def with_privacy(**changes: Any) -> Plan:
    plan = plan_of()
    return plan.model_copy(update={"privacy": plan.privacy.model_copy(update=changes)})


def signed(world: World, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Invitation:
    """The invitation to a plan by a server, a signer and a log that do not verify its rho."""
    with monkeypatch.context() as patched:
        patched.setattr("fa_core.plan.budget.unsupported", lambda privacy: None)
        patched.setattr("fa_core.privacy.ledger.claim_holds", lambda charge: True)
        return world.invite(plan, world.release(), NOW, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"rho": Fraction("0.0172053180394")},
        {"rho": Fraction(1, 10)},
        {"alpha": Fraction(30)},
        {"alpha": Fraction(1)},
        {"epsilon": Fraction(1, 10)},
        {"alpha": None},
    ],
    ids=str,
)
def test_a_plan_that_costs_more_than_it_states_is_declined(
    world: World, setup: Setup, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """Signed by the pinned key, in the log, under the witness's signature, and still not answered."""
    invitation = signed(world, with_privacy(**changes), monkeypatch)
    device = setup.device()
    assert reason_of(lambda: device.handle("join", encode(invitation))) == "COST"
    assert not Records(setup.store()).contributions()


def test_a_device_that_does_not_verify_would_have_paid(
    world: World, setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = with_privacy(rho=Fraction(1, 10))
    with monkeypatch.context() as patched:
        patched.setattr("fa_core.plan.budget.implies", lambda *_: True)
        for place in ("privacy.ledger", "trust.charges"):
            patched.setattr(f"fa_core.{place}.claim_holds", lambda charge: True)
        drive(world, hostile, setup.device(), world.invite(hostile, world.release(), NOW, NOW))
    assert [each.rho for each in Records(setup.store()).contributions()] == [Fraction(1, 10)]


def test_a_device_is_charged_the_rho_of_the_plan(world: World, setup: Setup) -> None:
    plan = plan_of()
    drive(world, plan, setup.device(), world.invite(plan, world.release(), NOW, NOW))
    assert [each.rho for each in Records(setup.store()).contributions()] == [Fraction("0.0172053180393")]


def test_a_plan_of_before_is_not_answered(world: World, setup: Setup) -> None:
    """It carries no rho, so nobody can verify its charge: it is checked and signed again to be run."""
    plan = with_privacy(rho=None, alpha=None)
    invitation = world.invite(plan, world.release(), NOW, NOW)
    assert reason_of(lambda: setup.device().handle("join", encode(invitation))) == "NOT_CHARGED"

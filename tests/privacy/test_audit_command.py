"""`fa audit` passes what is sound, catches what is broken, and says which check did."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from clients import party as clients_party
from clients.device import trust
from fa_core.audit import FULL, QUICK, ROUND, Audited, Size, _charged, audit
from fa_core.audit.checks import FALSE_ALARM, Check, epsilon_of_mu
from fa_core.audit.pipelines import audited_plan, gather, side_by_side, spread_out, training_plan
from fa_core.cli import audit as command
from fa_core.cli import build
from fa_core.layout import compile_plan
from fa_core.trust.witness import Witness

SMALL = Size(pairs=50, batches=1, coverage=10, controls_everywhere=False)


def test_the_quick_audit_passes_and_names_what_caught_each_control():
    """False alarms: below 1e-6, by FALSE_ALARM and the number of checks."""
    result = CliRunner().invoke(build(), ["audit", "--quick", "--json"])
    found = json.loads(result.stdout)
    assert result.exit_code == 0, found
    checks = sum(len(each["checks"]) for each in found["pipelines"] if not each["broken"])
    assert checks * FALSE_ALARM < 1e-6
    caught = {each["broken"]: each["caught_by"] for each in found["pipelines"] if each["broken"]}
    assert "variance" in caught["sigma short by a third"]
    assert {"bounds", "loss"} & set(caught["sensitivity too small by 2"])
    assert "bounds" in caught["a joint map whose bound is too small by 2"]
    assert "independence" in caught["noise used for two releases"]
    assert "bounds" in caught["a histogram weighted after bounding"]
    assert caught["floating-point noise"] == ["whole numbers"]
    assert caught["intervals that forget the noise"] == ["coverage"]
    assert caught["clipped before rounding"] == ["bounds"]
    assert [each["name"] for each in found["pipelines"] if not each["broken"]] == [
        "central, discrete gaussian",
        "central, geometric",
        "distributed, discrete gaussian",
        "training, distributed",
        "charge, before a round",
    ]
    for party, check in (("the ledger", "ledger"), ("devices", "devices"), ("the witness", "witness")):
        assert caught[f"a round that skips the charge: {party}"] == [check]


def test_a_device_that_counts_past_its_bound_fails_the_audit(monkeypatch):
    """The real pipeline, with the evaluation broken: the audit is about what devices really send."""

    def doubled(plan, layout, fleet, worst, window):
        return (2 if fleet == "neighbours" else 1) * command.evaluate(plan, layout, fleet, worst, window)

    found = audit(doubled, command.ask, SMALL)
    assert all("bounds" in each.caught_by for each in found if not each.broken and each.name != ROUND)

    monkeypatch.setattr(command, "run_audit", lambda *_: found)
    result = CliRunner().invoke(build(), ["audit"])
    assert result.exit_code == 1
    assert "The audit FAILS: central, discrete gaussian" in result.stdout


@pytest.mark.parametrize("party", ["devices", "the witness"])
def test_a_party_that_looks_at_no_charge_fails_the_audit(party, monkeypatch):
    if party == "devices":
        monkeypatch.setattr(trust, "_charged", lambda *_: None)
        monkeypatch.setattr(clients_party, "covers", lambda *_: True)
    else:
        monkeypatch.setattr(Witness, "_require_charge", lambda *_: None)
    escaped = [each.broken for each in _charged(command.ask) if not each.good]
    assert escaped == [f"a round that skips the charge: {party}"]


def test_a_control_that_escapes_fails_the_audit(monkeypatch):
    passed = Check("variance", True, "1", "1")
    escaped = Audited("central", "sigma short by a third", (passed,))
    assert not escaped.good
    assert replace(escaped, checks=(replace(passed, passed=False),)).good
    monkeypatch.setattr(command, "run_audit", lambda *_: (escaped,))
    result = CliRunner().invoke(build(), ["audit"])
    assert result.exit_code == 1
    assert "NOTHING: IT ESCAPED" in result.stdout


def test_the_worst_device_reaches_every_bound_and_is_alone_in_it():
    for accounting, noise in (("zcdp", "central"), ("pure", "central"), ("zcdp", "distributed")):
        plan = audited_plan(accounting, noise, "1")
        layout = compile_plan(plan)
        for window in (0, 1):
            there, gone = (
                command.evaluate(plan, layout, "neighbours", worst, window) for worst in (True, False)
            )
            assert (there[1:] == gone[1:]).all()
            assert not gone[0].any()
            for block in layout.blocks:
                added = there[0][block.slice]
                if block.part == "joint":  # every pair of N events is within a percent of the worst
                    assert 0.99 * block.l2_squared <= (added**2).sum() <= block.l2_squared
                else:
                    assert np.abs(added).sum() == block.l1


def test_the_worst_device_of_training_is_at_its_bound_and_alone_in_it():
    """Truncation toward zero costs less than one in 4096 of each of 97 numbers."""
    plan = training_plan()
    layout = compile_plan(plan)
    (block,) = layout.blocks
    for window in (0, 1):
        there, gone = (command.evaluate(plan, layout, "neighbours", worst, window) for worst in (True, False))
        assert (there[1:] == gone[1:]).all()
        assert not gone[0].any()
        assert 0.99 * block.l2_squared <= (there[0] ** 2).sum() <= block.l2_squared


def test_the_epsilon_of_gaussian_privacy_is_that_of_its_definition():
    """Dong, Roth & Su 2022, corollary 2.13, at a point computed by hand: mu = 1, epsilon = 1."""
    assert epsilon_of_mu(1.0, 0.1269367) == pytest.approx(1.0, abs=1e-5)
    assert epsilon_of_mu(0.0, 1e-8) == 0
    assert epsilon_of_mu(-1.0, 1e-8) == 0
    assert epsilon_of_mu(0.5, 1e-8) < epsilon_of_mu(0.6, 1e-8)


def test_the_layout_side_by_side_draws_each_run_from_its_own_block():
    plan = audited_plan("zcdp", "central", "4")
    layout = compile_plan(plan)
    vector = np.arange(layout.length)
    rows = gather(layout, spread_out(layout, vector, 3), 3)
    assert (rows == vector).all()
    assert side_by_side(layout, 3).length == 3 * layout.length


@pytest.mark.long
def test_the_full_audit_passes():
    assert FULL.batches > QUICK.batches
    found = audit(command.evaluate, command.ask, FULL)
    assert [each for each in found if not each.good] == []
    assert len({(each.name, each.broken) for each in found}) == len(found)

"""What a rollout has set aside of its population's budgets, and when it is free again."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import count
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from typer.testing import CliRunner

from fa_core.cli import build
from fa_core.errors import Refused
from fa_core.layout import compile_plan
from fa_core.plan import canonical
from fa_core.privacy.ledger import DEFAULT_POLICIES, Charge, Policy
from fa_core.rollout import budget, control
from fa_core.rollout.budget import account, set_aside
from fa_core.store import open_store
from fa_core.store.chain import nothing_set_aside
from tests.rollout import rolling
from tests.rollout.rolling import RESULT, WEEK, Rolling, plans, rollout, signed

LOOK = compile_plan(rolling.plan_of("gate")).cost
STAGE = compile_plan(rolling.plan_of("live")).cost
WHOLE = 4 * LOOK + 3 * STAGE
ROOM = Fraction(1, 100)
"""What the year's budget of these tests has beside the whole rollout."""

_numbers = count(1)


def other(fleet: Rolling, cost: Fraction, at: datetime | None = None) -> Charge:
    """A charge of another plan of the population, about the week that ends now; the plan is in the log."""
    made = at or fleet.now
    announced = fleet.store.announce(
        OTHER, rolling.AUTHOR.public_key().public_bytes_raw(), rolling.AUTHOR.sign(OTHER)
    )
    return Charge(
        "default", "weekly-misses", f"{next(_numbers):032x}", announced.subject, "zcdp", cost,
        Fraction(0), Fraction(0), made - WEEK, made, made,
    )  # fmt: skip


OTHER = canonical(rolling.plan_of("gate")).replace(b"embed-2-gate", b"weekly-misses")


def ask(fleet: Rolling, cost: Fraction, at: datetime | None = None) -> None:
    fleet.store.charge(other(fleet, cost, at), set_aside)


def policy(**changed: Fraction) -> Policy:
    wide = dict.fromkeys(("window", "week", "family"), Fraction(9))
    return replace(DEFAULT_POLICIES["zcdp"], **{**wide, "year": WHOLE + ROOM, **changed})


@pytest.fixture
def started(fleet: Rolling) -> Rolling:
    """A rollout under way in a population whose budget for a year is hardly more than the rollout needs."""
    rolling.declare(fleet.store, policy())
    fleet.start()
    return fleet


def reserved(fleet: Rolling) -> Fraction:
    found = account(fleet.history(), fleet.store.charges("default"), fleet.now)
    assert found is not None
    return found.reserved


def test_another_plan_cannot_use_up_what_is_set_aside(started: Rolling) -> None:
    with pytest.raises(Refused, match="rollout embed-2@1 has set budget aside") as error:
        ask(started, ROOM + Fraction(1, 1000))
    assert error.value.exit_code == 3
    assert "live stage 3 of rollout embed-2@1" in str(error.value)
    assert started.store.charges("default") == ()
    ask(started, ROOM)
    for what, verdict in (("gate", 0), ("gate", 1), ("live", 1)):
        started.week(what, verdict)
    spent = sum((each.cost for each in started.store.charges("default")), Fraction(0))
    assert spent == ROOM + 2 * LOOK + STAGE
    assert reserved(started) == 2 * STAGE
    assert started.store.verify_ledger() == []


def test_without_the_reservation_it_could(started: Rolling) -> None:
    """The control: the same rollout beside a ledger that sets nothing aside has no budget for its look."""
    asked = other(started, WHOLE + ROOM - LOOK / 2)
    with pytest.raises(Refused, match="set budget aside"):
        started.store.charge(asked, set_aside)
    started.store.charge(asked, nothing_set_aside)
    with pytest.raises(Refused, match="year budget: asks"):
        started.week("gate", 1)


def test_looks_draw_it_down_and_an_expansion_frees_those_that_are_left(started: Rolling) -> None:
    assert reserved(started) == WHOLE
    started.now += WEEK
    started.release("gate", 0)
    assert reserved(started) == WHOLE - LOOK  # charged, and not decided yet
    started.decide()
    assert reserved(started) == WHOLE - LOOK
    with pytest.raises(Refused, match="set budget aside"):
        started.release("gate", 0)  # a second round in the same period is of no look
    started.week("gate", 1)
    assert started.history().stage == 1
    assert reserved(started) == 3 * STAGE
    started.now += WEEK
    started.release("live", 1)
    assert reserved(started) == 2 * STAGE
    ask(started, ROOM + 2 * LOOK)


def test_a_look_whose_time_is_over_is_free(started: Rolling) -> None:
    started.now += 2 * WEEK + timedelta(hours=1)
    assert reserved(started) == WHOLE - LOOK
    found = account(started.history(), (), started.now)
    assert found is not None
    assert [each.name for each in found.reservation.planned][:2] == ["look 2", "look 3"]


def killed(fleet: Rolling) -> None:
    control.operate(fleet.context, rollout(), "kill", "no more")


def expired(fleet: Rolling) -> None:
    fleet.now = fleet.history().expires


def all_looks_taken(fleet: Rolling) -> None:
    for _ in range(4):
        fleet.week("gate", 0)


@pytest.mark.parametrize(
    "end", [lambda fleet: fleet.week("gate", -1), killed, expired, all_looks_taken],
    ids=["rolled back", "killed", "expired", "all looks taken"],
)  # fmt: skip
def test_what_it_did_not_use_is_free_at_the_end(started: Rolling, end: Callable[[Rolling], Any]) -> None:
    end(started)
    assert reserved(started) == 0
    spent = sum((each.cost for each in started.store.charges("default")), Fraction(0))
    ask(started, WHOLE + ROOM - spent)


def test_a_hold_frees_nothing(started: Rolling) -> None:
    control.operate(started.context, rollout(), "hold", "wait")
    assert reserved(started) == WHOLE


def test_it_is_the_same_after_a_restore(started: Rolling, tmp_path: Path) -> None:
    started.week("gate", 0)
    started.store.backup(tmp_path / "backup")
    asked = other(started, ROOM + Fraction(1, 1000))
    with open_store(tmp_path / "again") as again:
        again.restore(tmp_path / "backup")
        again.announce(OTHER, rolling.AUTHOR.public_key().public_bytes_raw(), rolling.AUTHOR.sign(OTHER))
        with pytest.raises(Refused, match="rollout embed-2@1 has set budget aside"):
            again.charge(asked, set_aside)


def test_of_two_runs_at_once_one_has_what_is_left(started: Rolling) -> None:
    asked, refused, both = [other(started, ROOM), other(started, ROOM)], [], Barrier(2)

    def charge(each: Charge) -> None:
        with open_store(started.folder.parent / "store") as own:
            both.wait()
            try:
                own.charge(each, set_aside)
            except Refused as error:
                refused.append(str(error))

    threads = [Thread(target=charge, args=(each,)) for each in asked]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert (len(refused), len(started.store.charges("default"))) == (1, 1)


def test_a_start_finds_what_was_charged_while_it_began(
    fleet: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budgets are checked again within the transaction that writes the start."""
    rolling.declare(fleet.store, policy())
    begin, asked = fleet.witness.begin, other(fleet, ROOM + Fraction(1, 1000))

    def slow(stage: bytes) -> bytes:
        fleet.store.charge(asked, set_aside)
        return begin(stage)

    monkeypatch.setattr(fleet.witness, "begin", slow)
    with pytest.raises(Refused, match="no budget for its live stage 3"):
        fleet.start()
    assert fleet.entries() == []


def test_a_second_rollout_is_refused_what_the_first_has_set_aside(started: Rolling) -> None:
    """In the same population for another wake word; with as much again it starts, beside the first."""
    costs, charges = budget.costs_of(plans()), started.store.charges("default")
    second = rollout(wake_word="hey_jarvis")
    others = set_aside(started.store.rollouts(), "default", charges, started.now)
    for year, room in ((WHOLE + ROOM, False), (2 * WHOLE, True)):
        rolling.declare(started.store, policy(year=year))
        ledger = started.store.declaration("default"), charges
        if room:
            budget.require_room(second, costs, ledger, others, started.now)
        else:
            with pytest.raises(Refused, match="no budget for"):
                budget.require_room(second, costs, ledger, others, started.now)


def test_a_week_is_that_of_the_look_and_not_of_all(fleet: Rolling) -> None:
    """A charge a whole week before the first look is beside none of them; one in between is."""
    rolling.declare(fleet.store, policy(year=Fraction(2), week=LOOK + ROOM / 2))
    fleet.start()
    ask(fleet, ROOM)
    fleet.now += timedelta(days=3)
    with pytest.raises(Refused, match="look 1 of rollout embed-2@1"):
        ask(fleet, ROOM)


def test_budgets_that_were_lowered_stop_no_other_plan(started: Rolling) -> None:
    """What no longer fits anyway is not protected; the looks that do are."""
    rolling.declare(started.store, policy(year=2 * LOOK + ROOM))
    with pytest.raises(Refused, match="look 2 of"):
        ask(started, 2 * ROOM)
    ask(started, ROOM)
    started.week("gate", 0)


def test_a_start_of_before_sets_nothing_aside(fleet: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_before(*given: Any) -> dict[str, Any]:
        return {key: each for key, each in budget.stated(*given).items() if key != "plans"}

    monkeypatch.setattr(control, "stated", of_before)
    rolling.declare(fleet.store, policy())
    control.start(fleet.context, rollout(), signed(rollout()), RESULT, plans())
    assert account(fleet.history(), (), fleet.now) is None
    ask(fleet, WHOLE)


def test_the_commands_show_it(started: Rolling) -> None:
    started.week("gate", 0)

    def fa(*words: str) -> str:
        result = CliRunner().invoke(build(), [*words, "--store", str(started.folder.parent / "store")])
        assert result.exit_code == 0, result.output
        return result.output

    at = ("--at", started.now.astimezone(UTC).isoformat())
    shown = fa("rollout", "status", "embed-2", *at)
    assert "rho 0.0172053 spent" in shown.replace("about ", "")
    assert "set aside for look 2 to live stage 3" in shown
    found = json.loads(fa("rollout", "status", "embed-2", "--json", *at))["budget"]
    assert (Fraction(found["spent"]), Fraction(found["reserved"])) == (LOOK, WHOLE - LOOK)
    own = json.loads(fa("ledger", "show", "--json"))["populations"][0]["reserved"]
    assert (own[0]["holder"], own[0]["for"]) == ("rollout embed-2@1", "look 2")

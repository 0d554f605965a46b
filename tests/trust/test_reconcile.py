"""`fa ledger verify --journal`: the ledger beside what the witness signed."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fa_core.cli.ledger import app
from fa_core.errors import BadInput, RoundFailed
from fa_core.privacy.ledger import DEFAULT_POLICIES
from fa_core.privacy.ledger_rows import decode, encode
from fa_core.store import Declaration
from fa_core.trust.enrolment import Authority
from fa_core.trust.reconcile import Signed, compare, read_journal
from tests.rounds.small import NOW, World, small_plan
from tests.store.test_ledger_rules import charge


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One release of a masked round, one of a plain one, and a round in which nobody joined."""
    made = World.make(tmp_path, 8)
    made.run(small_plan())
    made.run(small_plan(secure=False))
    with pytest.raises(RoundFailed, match="0 devices joined"):
        made.run(small_plan(), lambda number, device: None)  # type: ignore[arg-type, return-value]
    yield made
    made.store.close()


def journal_of(world: World) -> Path:
    return world.folder / "local" / "witness"


def verify(world: World, authority: bytes | None = None) -> tuple[int, dict[str, Any]]:
    """Run the command; return its exit code and what it printed."""
    options = ["--store", str(world.folder / "store"), "--journal", str(journal_of(world)), "--json"]
    if authority is not None:
        file = world.folder / "authority.pub"
        file.write_text(authority.hex())
        options += ["--authority", str(file)]
    ran = CliRunner().invoke(app, ["verify", *options])
    assert ran.exception is None or isinstance(ran.exception, BadInput), ran.exception
    return getattr(ran.exception, "exit_code", 0), json.loads(ran.stdout)


def test_a_charge_without_a_roster_is_unused_and_no_fault(world: World) -> None:
    (failure,) = world.store.failures()
    printed = {"good": True, "problems": [], "unused": [failure.release]}
    assert verify(world, world.authority.public_key) == (0, printed)
    folder = str(world.folder / "store")
    plain = CliRunner().invoke(app, ["verify", "--store", folder, "--journal", str(journal_of(world))])
    assert f"unused: release {failure.release} was charged" in plain.output
    assert "every roster that the witness signed is charged" in plain.output


def test_a_roster_whose_charge_the_ledger_does_not_have_is_a_fault(world: World, tmp_path: Path) -> None:
    """The aggregator keeps a second ledger, and shows the reviewer the one with less in it."""
    elsewhere = World.make(tmp_path / "elsewhere", 8)
    hidden, _ = elsewhere.run(small_plan())
    elsewhere.store.close()
    for file in journal_of(elsewhere).glob(f"{hidden.id}-*"):
        shutil.copy(file, journal_of(world))
    code, printed = verify(world)
    assert code == 2
    missing = f"release {hidden.id}: the witness signed a roster, and the ledger has no charge"
    assert printed["problems"] == [missing]
    shutil.copy(journal_of(elsewhere) / "checkpoint", journal_of(world))
    assert any("history was rewritten" in each for each in verify(world)[1]["problems"])


def test_another_cost_is_a_fault(world: World) -> None:
    (file,) = journal_of(world).glob("*-charge")
    found: Any = decode(file.read_bytes())
    file.write_bytes(encode(replace(found, cost=2 * found.cost, epsilon=2 * found.epsilon)))
    code, printed = verify(world)
    assert code == 2
    assert "the ledger charges rho" in printed["problems"][0]
    assert "the witness was shown rho" in printed["problems"][0]


def test_a_secure_sum_without_a_roster_is_a_fault(world: World) -> None:
    (release,) = (each.name.split("-")[0] for each in journal_of(world).glob("*-roster"))
    for file in journal_of(world).glob(f"{release}-*"):
        file.unlink()
    code, printed = verify(world)
    assert code == 2
    assert printed["problems"] == [
        f"release {release}: it is a secure sum, and the witness signed no roster for it"
    ]


def test_budgets_that_the_authority_did_not_sign_are_named(world: World) -> None:
    unsigned = "its budgets are not signed by the enrolment authority"
    assert verify(world, Authority.generate().public_key)[1]["problems"] == [f"population small: {unsigned}"]
    world.store.declare(Declaration("second", "zcdp", DEFAULT_POLICIES["zcdp"], NOW))
    assert verify(world, world.authority.public_key)[1]["problems"] == [f"population second: {unsigned}"]
    assert verify(world)[0] == 0, "without the authority's key nothing is said of signatures"


def test_what_is_compared(tmp_path: Path) -> None:
    one, two = charge(1, 0), charge(2, 0)
    later = replace(one, at=one.at.replace(year=2030))
    both = frozenset({one.release, two.release})
    assert compare([one, two], Signed(both, {one.release: later, two.release: two}, None)).problems == ()
    assert compare([one, two], Signed(frozenset(), {}, None)).unused == (one.release, two.release)
    (kept,) = compare([one], Signed(frozenset({one.release}), {}, None)).problems
    assert kept == f"release {one.release}: the witness signed a roster and has no charge in its journal"
    for change in ({"cost": Fraction(1, 7)}, {"population": "labs"}, {"plan_hash": "1" * 64}):
        other = replace(one, **change)  # type: ignore[arg-type]
        assert compare([one], Signed(frozenset({one.release}), {one.release: other}, None)).problems


def test_what_is_no_journal_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such directory"):
        read_journal(tmp_path / "none")
    for content in (b"garbage", encode(charge(1, 0))):
        (tmp_path / f"{'0' * 32}-charge").write_bytes(content)
        with pytest.raises(BadInput, match="0-charge"):
            read_journal(tmp_path)

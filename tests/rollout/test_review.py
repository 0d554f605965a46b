"""What a dishonest aggregator tries with a rollout, each beside the honest way that is granted."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fa_core.errors import BadInput, Refused, RoundFailed
from fa_core.plan import canonical as canonical_plan
from fa_core.privacy.ledger import Charge
from fa_core.privacy.ledger_rows import encode
from fa_core.publication.rollout import RolloutManifest
from fa_core.publication.versions import older
from fa_core.rollout import control
from fa_core.rollout.decision import Decision, claim
from fa_core.rollout.evidence import Ended, recompute
from fa_core.rollout.models import publication
from fa_core.rollout.record import Proposal, record
from fa_core.rollout.verify import verify
from fa_core.trust.grants import GRANT_SIZE, Asked, GrantRequest, ProvenEntry
from fa_core.trust.witness_service import WitnessClient, WitnessServer
from fa_core.values import Estimates, Participation
from tests.rollout.rolling import (
    AUTHOR,
    LOG,
    START,
    WEEK,
    WITNESS,
    Rolling,
    StandIn,
    charge_for,
    make_release,
    plan_of,
    rollout,
    whole_hour,
)  # fmt: skip

FIRST = Asked(rollout().hash, "live", 1, Fraction(1, 10))
PUBLIC = WITNESS.public_key().public_bytes_raw()
GOOD = 1000 / 7


def gate(number: int) -> dict[str, Any]:
    """What the stand-in says of a release that expands."""
    return {"z": GOOD, "number": number, "t": None}


def asking(
    fleet: Rolling, asked: Asked, began: Decision, ids: list[str | None], numbers: dict[str, Any], what: str
) -> GrantRequest:
    """What an aggregator asks that says what it likes: a plan's rounds, and a decision of its choice."""
    store, plan = fleet.store, plan_of(what)
    store.checkpoint(LOG, fleet.witness)
    own = {each.entry: each for each in store.rollouts()}
    ended = [*store.published("release"), *store.published("failure")]
    rounds = [(each, Ended.from_body(each.kind, each.body)) for each in ended]
    ours = sorted((each for each in rounds if each[1].plan_hash == plan.hash), key=lambda e: e[0].index)
    entries = [fleet.history().signed.entry(), began.entry()]
    wanted = sorted([*(own[e] for e in entries), *(e for e, _ in ours)], key=lambda each: each.index)
    proved = publication(store, wanted)
    return GrantRequest(
        asked,
        claim("expand", tuple(ids), numbers),
        proved.note,
        tuple(ProvenEntry(each.index, each.entry, each.inclusion) for each in proved.entries),
        tuple(store.release_file(each.release) for _, each in ours if each.window is not None),
    )


def knows(fleet: Rolling, charge: Charge, *, opened: bool = True) -> None:
    """Write into the witness's journal that it signed a round's roster, and its survivors."""
    journal = fleet.witness._journal
    journal.keep(f"{charge.release}-charge", encode(charge))
    if opened:
        journal.keep(f"{charge.release}-opened", b"%d" % len(journal.entries("-opened")))


def knows_release(fleet: Rolling, release: str) -> None:
    knows(fleet, charge_for(fleet.store.release(release)))


def logged(fleet: Rolling, decision: Decision) -> Decision:
    fleet.store.publish("decision", rollout().hash.hex(), decision.entry())
    return decision


def refused(fleet: Rolling, request: GrantRequest, match: str) -> None:
    with pytest.raises(Refused, match=match):
        fleet.witness.grant(request.encode())


def test_a_release_of_before_a_stage_tests_none_of_its_successors(fleet: Rolling) -> None:
    """Dated back, a stage would have lasted, and one release of the shadow's time would test them all."""
    fleet.start()
    fleet.now += WEEK
    early = fleet.release("live", 1)
    fleet.release("gate", 1)
    fleet.decide()
    began = fleet.history().decisions[-1]
    stages = rollout().stages
    back = logged(fleet, replace(began, next=replace(began.next, issued=START), began=START))
    second = Asked(rollout().hash, "live", 2, stages[2].share)
    refused(fleet, asking(fleet, second, back, [early], gate(1), "live"), "not lasted")
    fleet.now += WEEK
    refused(fleet, asking(fleet, second, back, [early], gate(1), "live"), "other releases")
    own = fleet.release("live", 1)
    refused(fleet, asking(fleet, second, back, [early], gate(1), "live"), "other releases")
    assert (
        len(fleet.witness.grant(asking(fleet, second, back, [own], gate(1), "live").encode())) == GRANT_SIZE
    )


def test_a_stage_is_as_old_as_the_witness_says(fleet: Rolling) -> None:
    """The decision is written days after the grant: its weeks are counted from the grant."""
    fleet.start()
    fleet.now += WEEK
    fleet.release("gate", 1)

    class Broken(Exception):
        pass

    class Once:
        def __getattr__(self, name: str) -> Any:
            return getattr(fleet.witness, name)

        def begin(self, request: bytes) -> bytes:
            raise Broken

    with pytest.raises(Broken):
        control.decide(replace(fleet.context, witness=Once()), rollout())
    granted = fleet.now
    fleet.now += timedelta(days=2)
    made = fleet.decide().decision
    assert made is not None
    assert (made.at, made.since) == (fleet.now, granted)
    assert fleet.history().due is not None
    assert fleet.history().due.opens == whole_hour(granted) + WEEK  # type: ignore[union-attr]
    fleet.now = granted + WEEK
    fleet.release("live", 1)
    assert fleet.decide().verdict == "expand"
    assert verify(fleet.store, fleet.history(), fleet.judge, PUBLIC) == []


def test_a_gate_starts_once(fleet: Rolling) -> None:
    """A second start, logged after the first week was bad, would make the second week the first look."""
    fleet.start()
    start = fleet.history().decisions[0]
    fleet.now += WEEK
    fleet.release("gate", -1)
    again = replace(start, next=replace(start.next, issued=START + WEEK), began=START + WEEK)
    fleet.now += WEEK
    later = fleet.release("gate", 1)
    logged(fleet, again)
    assert fleet.witness.begin(rollout().hash + bytes(2)) == int(START.timestamp()).to_bytes(8, "little")
    refused(fleet, asking(fleet, FIRST, again, [later], gate(1), "gate"), "other releases")
    refused(fleet, asking(fleet, FIRST, again, [None, later], gate(2), "gate"), "other releases")


def test_a_release_of_before_the_start_was_logged_does_not_count(fleet: Rolling) -> None:
    fleet.start()
    start = fleet.history().decisions[0]
    fleet.now += WEEK
    made = fleet.release("gate", 1)
    again = logged(fleet, replace(start, why="again"))
    refused(fleet, asking(fleet, FIRST, again, [made], gate(1), "gate"), "before the decision that began")
    assert fleet.witness.grant(asking(fleet, FIRST, start, [made], gate(1), "gate").encode())


def test_a_start_needs_the_witness(fleet: Rolling) -> None:
    class Away:
        def begin(self, request: bytes) -> bytes:
            raise RoundFailed("the witness does not answer")

    real: Any = fleet.witness
    fleet.witness = Away()  # type: ignore[assignment]
    with pytest.raises(RoundFailed):
        fleet.start()
    assert fleet.store.rollouts() == ()
    fleet.witness = real
    assert fleet.start().verdict == "expand"


def test_of_several_rounds_the_one_opened_first_counts(fleet: Rolling) -> None:
    """Whatever the log's order is. The control selects the same one."""
    fleet.start()
    start = fleet.history().decisions[0]
    fleet.now += WEEK
    good, bad = fleet.release("gate", 1), fleet.release("gate", 0)
    knows_release(fleet, bad)
    knows_release(fleet, good)
    refused(fleet, asking(fleet, FIRST, start, [good], gate(1), "gate"), "other releases")
    outcome = fleet.decide()
    assert outcome.decision is not None
    assert (outcome.verdict, outcome.decision.releases) == ("hold", (bad,))


@pytest.mark.parametrize("opened", [True, False])
def test_a_round_that_was_opened_and_called_a_failure_takes_its_slot(fleet: Rolling, opened: bool) -> None:
    """Only a round without survivors may be replaced by another."""
    fleet.start()
    start, plan = fleet.history().decisions[0], plan_of("gate")
    fleet.now += WEEK
    failed, data = make_release(plan, -1, 77, whole_hour(fleet.now)), canonical_plan(plan)
    fleet.store.announce(data, AUTHOR.public_key().public_bytes_raw(), AUTHOR.sign(data))
    fleet.store.charge(charge_for(failed))
    fleet.store.fail(failed.id, data, "default", "unmask", "no sum", fleet.now)
    good = fleet.release("gate", 1)
    knows(fleet, charge_for(failed), opened=opened)
    knows_release(fleet, good)
    request = asking(fleet, FIRST, start, [good], gate(1), "gate")
    if not opened:
        assert len(fleet.witness.grant(request.encode())) == GRANT_SIZE
        assert fleet.decide().verdict == "expand"
        return
    refused(fleet, request, "other releases")
    assert "look 1 is due" in fleet.decide().why
    fleet.now += WEEK
    knows_release(fleet, fleet.release("gate", 1))
    assert fleet.decide().verdict == "expand"
    assert fleet.history().of("look")[-1].releases[0] is None
    assert verify(fleet.store, fleet.history(), fleet.judge, PUBLIC) == []


def test_which_round_counts_is_not_decided_without_the_witness(fleet: Rolling) -> None:
    fleet.start()
    fleet.now += WEEK
    fleet.release("gate", 1)
    fleet.release("gate", 0)

    class Away:
        def __getattr__(self, name: str) -> Any:
            return getattr(fleet.witness, name)

        def opened(self, request: bytes) -> bytes:
            raise RoundFailed("the witness does not answer")

    outcome = control.decide(replace(fleet.context, witness=Away()), rollout())
    assert (outcome.decision, outcome.verdict) == (None, "hold")
    assert fleet.decide().verdict == "expand"


def deployed(fleet: Rolling) -> None:
    fleet.witness.stages.recompute = lambda evidence: recompute(evidence, StandIn())


def saved(fleet: Rolling, **changed: Any) -> str:
    """Save a release of the gate that no simulation made, with some things changed."""
    fleet.release("gate", 1)  # so that the plan is announced
    made = replace(make_release(plan_of("gate"), 1, 99, whole_hour(fleet.now)), **changed)
    fleet.store.charge(charge_for(made))
    fleet.store.save(made, Estimates(made.id, 0.95, (), ()), synthetic=False)
    return made.id


@pytest.mark.parametrize("simulated", [False, True])
def test_a_deployed_witness_counts_rounds_that_it_signed(fleet: Rolling, simulated: bool) -> None:
    fleet.start()
    start = fleet.history().decisions[0]
    fleet.now += WEEK
    made = saved(fleet, simulated=simulated)
    first = next(each.release for each in fleet.store.charges("default") if each.release != made)
    deployed(fleet)
    refused(fleet, asking(fleet, FIRST, start, [first], gate(1), "gate"), "of no round whose survivors")
    knows_release(fleet, made)
    request = asking(fleet, FIRST, start, [made], gate(1), "gate")
    if simulated:
        refused(fleet, request, "of no round whose survivors")
    else:
        assert len(fleet.witness.grant(request.encode())) == GRANT_SIZE


def test_a_release_is_of_the_round_that_was_signed(fleet: Rolling) -> None:
    fleet.start()
    start = fleet.history().decisions[0]
    fleet.now += WEEK
    made = saved(fleet, simulated=False)
    other = charge_for(fleet.store.release(made))
    knows(fleet, replace(other, window_start=other.window_start + timedelta(hours=1)))
    deployed(fleet)
    refused(fleet, asking(fleet, FIRST, start, [made], gate(1), "gate"), "another round")


@pytest.mark.parametrize("what", ["layout", "noise", "nobody"])
def test_a_release_has_the_noise_and_the_layout_of_its_plan(fleet: Rolling, what: str) -> None:
    fleet.start()
    start = fleet.history().decisions[0]
    fleet.now += WEEK
    sound = make_release(plan_of("gate"), 1, 99, whole_hour(fleet.now))
    blocks = (replace(sound.layout.blocks[0], variance=Fraction(1)), *sound.layout.blocks[1:])
    changed, match = {
        "layout": ({"layout": replace(sound.layout, blocks=blocks)}, "laid out in another way"),
        "noise": ({"noise_variance": sound.noise_variance / 4}, "other noise"),
        "nobody": ({"participation": Participation(0, 0, 0, 0)}, "other noise"),
    }[what]
    made = saved(fleet, **changed)  # type: ignore[arg-type]
    knows_release(fleet, made)
    refused(fleet, asking(fleet, FIRST, start, [made], gate(1), "gate"), match)


class Meanwhile:
    """A witness during whose grant something else happens."""

    def __init__(self, real: Any, what: Callable[[], object]) -> None:
        self._real, self._what = real, what

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def grant(self, request: bytes) -> bytes:
        signature: bytes = self._real.grant(request)
        self._what()
        return signature


def test_a_hold_during_a_grant_holds(fleet: Rolling) -> None:
    fleet.start()
    fleet.now += WEEK
    fleet.release("gate", 1)
    hold = Meanwhile(fleet.witness, lambda: control.operate(fleet.context, rollout(), "hold", "stop"))
    with pytest.raises(Refused, match="an operator holds it"):
        control.decide(replace(fleet.context, witness=hold), rollout())
    history = fleet.history()
    assert (history.held, history.last_state, history.stage) == (True, "shadow", 0)
    control.operate(fleet.context, rollout(), "resume", "go on")
    assert fleet.decide().verdict == "expand"


def test_a_hold_keeps_the_stage_that_it_finds(fleet: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was computed in shadow, and is written after the first live stage began."""
    fleet.start()
    fleet.now += WEEK
    fleet.release("gate", 1)

    def late(*given: Any) -> Any:
        monkeypatch.setattr(control, "record", record)
        fleet.decide()
        return record(*given)

    monkeypatch.setattr(control, "record", late)
    control.operate(fleet.context, rollout(), "hold", "stop")
    history = fleet.history()
    assert (history.held, history.last_state, history.stage) == (True, "live", 1)
    assert verify(fleet.store, history, fleet.judge, PUBLIC) == []


def test_nothing_is_decided_of_a_rollout_that_has_expired(fleet: Rolling) -> None:
    fleet.start()
    late = replace(fleet.context, now=fleet.history().expires)
    with pytest.raises(Refused, match="is expired"):
        record(late, rollout(), Proposal("look", 1, "hold", (None,), {}, "skipped"))


def test_after_an_end_the_witness_grants_nothing(fleet: Rolling) -> None:
    fleet.start()
    start = fleet.history().decisions[0]
    fleet.now += WEEK
    good = fleet.release("gate", 1)
    request = asking(fleet, FIRST, start, [good], gate(1), "gate")
    control.operate(fleet.context, rollout(), "kill", "stop")
    refused(fleet, request, "has ended")


def test_later_looks_that_roll_back_are_not_passed_over(fleet: Rolling) -> None:
    fleet.start()
    start = fleet.history().decisions[0]
    fleet.now += WEEK
    good = fleet.release("gate", 1)
    alone = asking(fleet, FIRST, start, [good], gate(1), "gate")
    fleet.now += WEEK
    bad = fleet.release("gate", -1)
    knows_release(fleet, good)
    knows_release(fleet, bad)
    refused(
        fleet, asking(fleet, FIRST, start, [good], gate(1), "gate"), "look 2 was taken and says roll_back"
    )
    refused(fleet, alone, "is left out")


def test_a_claim_without_releases_is_refused(fleet: Rolling) -> None:
    fleet.start()
    start = fleet.history().decisions[0]
    fleet.now += WEEK
    for ids, match in (([None], "without the release"), ([], "plans 4 looks"), ([None] * 9, "plans 4 looks")):
        refused(fleet, asking(fleet, FIRST, start, ids, {}, "gate"), match)  # type: ignore[arg-type]
    request = asking(fleet, FIRST, start, [None], {}, "gate")
    for releases in ([1], [["x"]], "x", {"a": 1}, [""], ["x" * 65]):
        bad = json.dumps({"gate": {}, "releases": releases, "verdict": "expand"}).encode()
        with pytest.raises(Refused):
            fleet.witness.grant(replace(request, claim=bad).encode())


HOSTILE: list[Any] = [
    None, True, -1, 1.5, "1", [], {}, 10**30, 253_402_300_799, "1/0", "9" * 5000, "1e999999999", "\ud800",
    float("nan"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["decision", "manifest"])
def test_hostile_entries_are_refused_in_one_way(fleet: Rolling, kind: str) -> None:
    """Every field of a sound entry is replaced by values of other types and sizes."""
    outcome = fleet.start()
    assert outcome.decision is not None
    assert outcome.history.manifest is not None
    read: Any = Decision.from_entry if kind == "decision" else RolloutManifest.from_entry
    sound = (outcome.decision if kind == "decision" else outcome.history.manifest).entry()
    head, data = sound[: sound.index(b"{")], sound[sound.index(b"{") :]
    body = json.loads(data)
    assert read(sound)
    for part in (body, body.get("manifest", {})):
        for key, right in list(part.items()):
            for wrong in HOSTILE:
                part[key] = wrong
                text = json.dumps(body, sort_keys=True, separators=(",", ":"))
                try:
                    read(head + text.encode())
                except BadInput:
                    pass
                else:
                    assert type(wrong) is type(right)
            part[key] = right


def test_a_request_with_hostile_fields_is_not_read() -> None:
    sound = GrantRequest(FIRST, b"{}", b"note", (), ())
    for key in ("rollout", "state", "stage", "share"):
        for wrong in HOSTILE:
            body = json.loads(sound.encode())
            body["asked"][key] = wrong
            data = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
            if key == "share" and wrong == "1":
                assert GrantRequest.decode(data).asked.share == 1
                continue
            with pytest.raises(BadInput):
                GrantRequest.decode(data)


def test_versions_of_any_length_are_compared() -> None:
    assert older("a-" + "9" * 5000, "a-1" + "0" * 5000)
    assert not older("a-007", "a-7")
    assert not older("a-7.0", "a-7")
    assert older("a-07.9", "a-7.10")


def test_the_service_answers_whatever_happens(fleet: Rolling, tmp_path: Path) -> None:
    def broken(body: bytes) -> bytes:
        raise ZeroDivisionError

    with WitnessServer(fleet.witness, tmp_path / "w.sock") as server:
        server.operations[6] = broken
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            client = WitnessClient(tmp_path / "w.sock")
            with pytest.raises(Refused, match="ZeroDivisionError"):
                client.grant(b"")
            began = client.begin(rollout().hash + bytes(2))
            assert (
                began
                == int(START.timestamp()).to_bytes(8, "little")
                == fleet.witness.begin(FIRST.rollout + bytes(2))
            )
            assert client.opened(bytes(16)) == b""
            numbered = rollout().hash + b"\1\0"
            assert client.hold(numbered) == client.resume(numbered) == client.end(rollout().hash) == b""
            for call in (client.begin, client.hold, client.resume, client.end, client.opened):
                with pytest.raises(Refused, match="cannot read"):
                    call(b"short")
            with pytest.raises(Refused, match="has ended"):
                client.begin(rollout().hash + bytes(2))
        finally:
            server.shutdown()
            thread.join()


def test_verify_computes_every_release_of_a_decision(fleet: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that names another first release than the one of the first look's time."""
    fleet.start()
    fleet.week("gate", 0)
    other = fleet.release("live", 1)
    assert verify(fleet.store, fleet.history(), fleet.judge, PUBLIC) == []
    monkeypatch.setattr(control, "_looked", lambda history: (other,))
    fleet.week("gate", 0)
    problems = verify(fleet.store, fleet.history(), fleet.judge, PUBLIC)
    assert any("another release than the first of look 1" in each for each in problems)


@pytest.mark.parametrize("ids", [(), (None,), ("ab" * 16, None, None)])
def test_verify_names_a_decision_on_another_number_of_releases(fleet: Rolling, ids: Any) -> None:
    fleet.start()
    fleet.now += WEEK
    fleet.release("gate", 0)
    start = fleet.history().decisions[0]
    logged(fleet, replace(start, action="look", number=1, verdict="hold", releases=ids, began=None))
    assert any("look 1" in each for each in verify(fleet.store, fleet.history(), fleet.judge, PUBLIC))


def test_a_claim_is_kept_but_for_the_last_digits_of_its_numbers(fleet: Rolling) -> None:
    """The grant was kept and its decision was not: another machine computes it again."""
    fleet.start()
    start = fleet.history().decisions[0]
    fleet.now += WEEK
    good = fleet.release("gate", 1)
    near = gate(1) | {"z": GOOD * (1 + 1e-9)}
    fleet.witness.grant(asking(fleet, FIRST, start, [good], near, "gate").encode())
    assert fleet.decide().verdict == "expand"
    assert fleet.week("live", 1).verdict == "expand"

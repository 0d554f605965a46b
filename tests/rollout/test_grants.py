"""The witness grants a stage where it computes the same from logged releases, and refuses everything else.

Each refusal has its control beside it: the request of which one thing was changed is granted.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fa_core.canonical_json import canonical
from fa_core.errors import BadInput, Refused
from fa_core.merkle import Proof
from fa_core.rollout import control
from fa_core.rollout.evidence import same
from fa_core.trust.grants import GRANT_SIZE, Asked, GrantRequest, ProvenEntry
from fa_core.trust.witness import Witness
from fa_core.trust.witness_service import WitnessClient, WitnessServer
from tests.rollout.rolling import LOG, WEEK, WITNESS, Rolling, rollout

FIRST = Asked(rollout().hash, "live", 1, Fraction(1, 10))


@dataclass
class Recording:
    """A witness that keeps what it is asked for stages, and passes it on."""

    real: Witness
    requests: list[GrantRequest] = field(default_factory=list)

    def seen(self) -> int:
        return self.real.seen()

    def cosign(self, note: bytes, proof: Proof) -> bytes:
        return self.real.cosign(note, proof)

    def grant(self, request: bytes) -> bytes:
        self.requests.append(GrantRequest.decode(request))
        raise Refused("only recorded")

    def begin(self, request: bytes) -> bytes:
        return self.real.begin(request)

    def hold(self, request: bytes) -> bytes:
        return self.real.hold(request)

    def resume(self, request: bytes) -> bytes:
        return self.real.resume(request)

    def end(self, rollout: bytes) -> bytes:
        return self.real.end(rollout)

    def opened(self, request: bytes) -> bytes:
        return self.real.opened(request)


def recorded(fleet: Rolling, about: Any = None) -> GrantRequest:
    """What the aggregator asks at this moment, which the witness has not decided."""
    recording = Recording(fleet.witness)
    with pytest.raises(Refused, match="only recorded"):
        control.decide(replace(fleet.context, witness=recording), about or rollout())
    return recording.requests[0]


@pytest.fixture
def asked(fleet: Rolling) -> GrantRequest:
    """The first live stage, after a look that holds and one that expands."""
    fleet.start()
    fleet.week("gate", 0)
    fleet.now += WEEK
    fleet.release("gate", 1)
    return recorded(fleet)


def claiming(request: GrantRequest, **changed: object) -> GrantRequest:
    return replace(request, claim=canonical(json.loads(request.claim) | changed))


def forged(request: GrantRequest) -> GrantRequest:
    """A release that the aggregator wrote itself, under the log's entry of another."""
    return replace(request, bodies=(request.bodies[1], request.bodies[1]))


def rewritten(request: GrantRequest) -> GrantRequest:
    """An entry that says another thing than the log's."""
    *others, last = request.entries
    body = last.entry.replace(b'"invited":20000', b'"invited":20001')
    assert body != last.entry
    return replace(request, entries=(*others, replace(last, entry=body)))


def of(request: GrantRequest, *places: int) -> tuple[ProvenEntry, ...]:
    return tuple(request.entries[place] for place in places)


FORGERIES: list[tuple[str, Callable[[GrantRequest], GrantRequest], str]] = [
    ("a verdict that was not reached", lambda r: claiming(r, verdict="hold"), "other numbers"),
    ("changed numbers", lambda r: claiming(r, gate={"z": 0.5, "number": 2, "t": None}), "other numbers"),
    ("a look left out of the claim", lambda r: claiming(r, releases=[None, "ab" * 16]), "other releases"),
    ("an unplanned look", lambda r: claiming(r, releases=["ab" * 16] * 5), "plans 4 looks"),
    ("no look", lambda r: claiming(r, releases=[]), "plans 4 looks"),
    ("no claim", lambda r: replace(r, claim=b"{}"), "without the rollout"),
    ("a release's bytes changed", forged, "not those that the log names"),
    ("a release's bytes missing", lambda r: replace(r, bodies=r.bodies[1:]), "bytes of each release"),
    ("an entry rewritten", rewritten, "not in the log"),
    (
        "a release missing",
        lambda r: replace(r, entries=of(r, 0, 1, 3), bodies=r.bodies[1:]),
        "other releases",
    ),
    ("the start missing", lambda r: replace(r, entries=of(r, 0, 2, 3)), "without the rollout"),
    ("the rollout missing", lambda r: replace(r, entries=of(r, 1, 2, 3)), "without the rollout"),
    ("entries in another order", lambda r: replace(r, entries=of(r, 1, 0, 2, 3)), "the log's order"),
    ("nothing at all", lambda r: replace(r, entries=(), bodies=()), "without the rollout"),
    ("another share", lambda r: replace(r, asked=replace(FIRST, share=Fraction(1, 2))), "another share"),
    ("a later stage", lambda r: replace(r, asked=Asked(FIRST.rollout, "live", 2, Fraction(1, 2))), "before"),
    ("the end", lambda r: replace(r, asked=Asked(FIRST.rollout, "complete", 3, Fraction(1))), "before"),
    ("another rollout", lambda r: replace(r, asked=replace(FIRST, rollout=bytes(32))), "not registered"),
    ("no checkpoint", lambda r: replace(r, note=b"none"), "not a checkpoint"),
]


@pytest.mark.parametrize(
    ("change", "reason"), [each[1:] for each in FORGERIES], ids=[f[0] for f in FORGERIES]
)
def test_a_request_is_refused_for_one_change(
    fleet: Rolling, asked: GrantRequest, change: Callable[[GrantRequest], GrantRequest], reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        fleet.witness.grant(change(asked).encode())
    assert len(fleet.witness.grant(asked.encode())) == GRANT_SIZE


def test_a_checkpoint_that_the_witness_did_not_cosign_is_refused(fleet: Rolling, asked: GrantRequest) -> None:
    lines = asked.note.splitlines(keepends=True)
    for note, reason in (
        (b"".join(lines[:-1]), "did not cosign"),
        (b"".join([*lines[:-2], lines[-1]]), "did not sign"),
    ):
        with pytest.raises(Refused, match=reason):
            fleet.witness.grant(replace(asked, note=note).encode())


def test_a_gate_that_does_not_expand_is_refused(fleet: Rolling) -> None:
    """The aggregator claims what the releases do not say."""
    fleet.start()
    fleet.now += WEEK
    fleet.release("gate", 0)

    class Lying(type(fleet.judge)):  # type: ignore[misc]
        def looks(self, document: Any, releases: Any) -> Any:
            return replace(super().looks(document, releases), verdict="expand")

    fleet.judge = Lying()
    with pytest.raises(Refused, match=r"nothing expands.*says hold"):
        fleet.decide()
    assert fleet.history().status(fleet.now) == "shadow"
    assert [each.action for each in fleet.history().decisions] == ["start"]


def test_a_round_that_the_witness_knows_cannot_be_left_out(
    fleet: Rolling, asked: GrantRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It signed the roster of a third release in the first look's time, of which the log shows no end."""
    known = fleet.store.charges("default")[0]
    hidden = replace(known, release="cd" * 16)
    monkeypatch.setattr(fleet.witness, "charges", lambda: (known, hidden))
    with pytest.raises(Refused, match="is left out"):
        fleet.witness.grant(asked.encode())
    monkeypatch.setattr(fleet.witness, "charges", lambda: (known,))
    fleet.witness.grant(asked.encode())


def test_a_failed_round_explains_a_skipped_look(fleet: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.start()
    fleet.now += WEEK
    fleet.release("gate", 1)
    charge = replace(fleet.store.charges("default")[0], release="cd" * 16)
    monkeypatch.setattr(fleet.witness, "charges", lambda: (charge,))
    with pytest.raises(Refused, match="is left out"):
        fleet.decide()
    plan = fleet.store.plan(rollout().gate.plan)
    fleet.store.fail(charge.release, plan, "default", "join", "too few devices", fleet.now)
    assert fleet.decide().verdict == "expand"


def test_a_stage_that_has_not_lasted_is_refused(fleet: Rolling, asked: GrantRequest) -> None:
    fleet.now -= WEEK  # by the witness's own clock
    with pytest.raises(Refused, match="not lasted"):
        fleet.witness.grant(asked.encode())
    fleet.now += WEEK
    fleet.witness.grant(asked.encode())


def test_an_expired_rollout_is_refused(fleet: Rolling, asked: GrantRequest) -> None:
    fleet.now = fleet.history().expires
    with pytest.raises(Refused, match="expired"):
        fleet.witness.grant(asked.encode())


def test_a_decision_that_was_not_granted_begins_no_stage(fleet: Rolling) -> None:
    """The log holds another decision of look 1 than the one that the witness granted a stage for."""
    fleet.start()
    fleet.week("gate", 1)
    fleet.now += WEEK
    fleet.release("live", 1)
    request = recorded(fleet)
    began = fleet.history().of("look")[0]
    other = replace(began, gate={"z": 9.0})
    index = fleet.store.publish("decision", rollout().hash.hex(), other.entry()).index
    fleet.store.checkpoint(LOG, fleet.witness)
    proof = fleet.store.prove(index)
    entries = [each for each in request.entries if b"\ndecision\n" not in each.entry]
    proofs = [fleet.store.prove(each.index) for each in entries]
    proved = sorted([*proofs, proof], key=lambda each: each.entry.index)
    changed = replace(
        request,
        note=proof.note,
        entries=tuple(ProvenEntry(p.entry.index, p.entry.entry, p.proof) for p in proved),
    )
    with pytest.raises(Refused, match="not the one that was granted"):
        fleet.witness.grant(changed.encode())
    fleet.witness.grant(request.encode())


def test_the_same_stage_gets_the_same_signature_after_a_restart(fleet: Rolling, asked: GrantRequest) -> None:
    signature = fleet.witness.grant(asked.encode())
    log = LOG.public_key().public_bytes_raw()
    again = Witness(WITNESS, bytes(32), fleet.folder.parent / "witness", log, lambda: fleet.now)
    assert again.grant(asked.encode()) == signature
    empty = replace(asked, entries=(), bodies=())
    assert again.grant(empty.encode()) == signature  # it was decided
    fresh = Witness(WITNESS, bytes(32), fleet.folder.parent / "another", log, lambda: fleet.now)
    fresh.begin(FIRST.rollout + bytes(2))
    with pytest.raises(Refused, match="means to compute a gate"):
        fresh.grant(asked.encode())


def test_a_grant_over_the_socket(fleet: Rolling, asked: GrantRequest, tmp_path: Path) -> None:
    with WitnessServer(fleet.witness, tmp_path / "w.sock") as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            client = WitnessClient(tmp_path / "w.sock")
            assert client.grant(asked.encode()) == fleet.witness.grant(asked.encode())
            with pytest.raises(Refused, match="cannot read"):
                client.grant(b"{}")
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    "bad",
    [
        replace(FIRST, state="../live"),
        replace(FIRST, stage=0),
        replace(FIRST, stage=-1),
        replace(FIRST, share=Fraction(2)),
        replace(FIRST, state="shadow", share=Fraction(0)),
        replace(FIRST, rollout=b"short"),
        Asked(FIRST.rollout, "complete", 3, Fraction(1, 2)),
    ],
)
def test_a_request_that_cannot_be_is_not_read(bad: Asked) -> None:
    sound = GrantRequest(FIRST, b"{}", b"note", (), ())
    assert GrantRequest.decode(sound.encode()) == sound
    with pytest.raises(BadInput):
        GrantRequest.decode(replace(sound, asked=bad).encode())
    for data in (sound.encode()[:-1], sound.encode() + b" ", b"[]", b"\xff"):
        with pytest.raises(BadInput):
            GrantRequest.decode(data)


def test_numbers_are_compared_but_for_their_last_digits() -> None:
    assert not same({"a": 10**400}, {"a": 1.0})
    assert same({"a": [1, 2.0, None]}, {"a": [1, 2.0 + 1e-12, None]})
    for other in ({"a": [1, 2.01, None]}, {"a": [1, 2.0]}, {"b": [1, 2.0, None]}, {"a": [True, 2.0, None]}):
        assert not same({"a": [1, 2.0, None]}, other)

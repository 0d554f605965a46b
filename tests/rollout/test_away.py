"""A rollout while its witness is away: ends reach devices, holds hold, and what breaks off is continued."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fa_core.errors import Refused, RoundFailed
from fa_core.merkle import Proof
from fa_core.publication import directory
from fa_core.publication.proofs import Publication, Seen, Uncosigned, verified
from fa_core.publication.rollout import RolloutManifest, rollout_name
from fa_core.rollout import control, publish
from fa_core.rollout.decision import Action
from fa_core.rollout.record import Context, Outcome
from fa_core.rollout.verify import verify
from fa_core.store import open_store
from fa_core.trust.grants import Asked, Grant, GrantRequest
from fa_core.trust.witness import Witness
from tests.rollout.rolling import LOG, WEEK, WITNESS, Away, Rolling, rollout

LOG_PUBLIC, PUBLIC = (each.public_key().public_bytes_raw() for each in (LOG, WITNESS))
NAME = rollout_name("default", "okay_nabu")
FIRST = GrantRequest(Asked(rollout().hash, "live", 1, rollout().stages[1].share), b"", b"", (), ()).encode()


def away(fleet: Rolling) -> Context:
    return replace(fleet.context, witness=Away(fleet.witness, cosigns=False))


def operate(context: Context, action: Action) -> Outcome:
    return control.operate(context, rollout(), action, "a programme wakes it")


def published(fleet: Rolling) -> tuple[RolloutManifest, bool]:
    """The manifest that devices find, and whether the witness cosigned it."""
    data = directory.read(fleet.folder, NAME)
    assert data is not None
    try:
        entries = verified(Publication.decode(data), LOG_PUBLIC, PUBLIC, Seen()).entries
    except Uncosigned as found:
        return RolloutManifest.from_entry(found.entries[1]), False
    return RolloutManifest.from_entry(entries[1]), True


def sound(fleet: Rolling) -> bool:
    found = verify(fleet.store, fleet.history(), fleet.judge, PUBLIC)
    return found == fleet.store.verify_log(LOG.public_key(), WITNESS.public_key()) == []


def ask(fleet: Rolling) -> bytes:
    """Ask the witness past the aggregator for the first live stage, which it granted before."""
    return fleet.witness.grant(FIRST)


# Ends.


@pytest.mark.parametrize("action", ["roll_back", "kill"])
def test_an_end_reaches_devices_while_the_witness_is_away(live: Rolling, action: Action) -> None:
    """By the log's signature alone, in a note that is not kept; the next call has it cosigned."""
    note = live.store.note()
    outcome = operate(away(live), action)
    assert (outcome.undelivered, outcome.unwitnessed) == ("", "the witness does not answer")
    end = outcome.history.manifest
    assert published(live) == (end, False)
    data = directory.read(live.folder, NAME)
    assert data is not None
    with pytest.raises(Uncosigned):  # a device that saw the stage finds the proof from there
        verified(Publication.decode(data), LOG_PUBLIC, PUBLIC, seen_of(live, note))
    assert live.store.note() == note
    assert not publish.cosigned(live.store, live.history())
    assert ask(live), "the witness does not know of the end"
    live.now += timedelta(days=2)
    again = control.decide(away(live), rollout())
    assert (again.undelivered, again.unwitnessed) == ("", "the witness does not answer")
    assert directory.read(live.folder, NAME) == data
    back = live.decide()
    assert (back.verdict, back.undelivered, back.unwitnessed) == ("roll_back", "", "")
    assert published(live) == (end, True)
    with pytest.raises(Refused, match="has ended"):
        ask(live)
    assert sound(live)


def seen_of(fleet: Rolling, note: bytes | None) -> Seen:
    from fa_core.trust import checkpoint

    assert note is not None
    found = checkpoint.parse(note)
    return Seen(found.size, found.root)


def test_only_an_end_is_published_without_the_cosignature(fleet: Rolling) -> None:
    fleet.start()
    first = published(fleet)
    for action in ("hold", "resume"):
        outcome = operate(away(fleet), action)
        assert outcome.undelivered == outcome.unwitnessed == "the witness does not answer"
    fleet.now += WEEK
    fleet.release("gate", 1)
    with pytest.raises(Refused, match="nothing expands"):
        control.decide(away(fleet), rollout())
    assert first[1]
    assert published(fleet) == first
    fleet.decide()
    assert published(fleet)[0].state == "live"
    assert published(fleet)[1]


def test_a_slow_witness_delays_no_end(fleet: Rolling) -> None:
    """Devices find it before the witness is asked for anything."""
    fleet.start()
    found: list[tuple[RolloutManifest, bool]] = []

    @dataclass
    class Slow:
        real: Witness

        def __getattr__(self, name: str) -> Any:
            found.append(published(fleet))
            return getattr(self.real, name)

    outcome = operate(replace(fleet.context, witness=Slow(fleet.witness)), "roll_back")
    assert found[0] == (outcome.history.manifest, False)
    assert published(fleet) == (outcome.history.manifest, True)


def test_a_store_can_be_written_while_a_checkpoint_waits_for_the_witness(fleet: Rolling) -> None:
    """Else a rollback would wait for another command that does."""
    fleet.start()

    class Waiting(Away):
        def seen(self) -> int:
            with open_store(fleet.folder.parent / "store") as other:
                ended = replace(fleet.context, store=other, witness=Away(fleet.witness, cosigns=False))
                operate(ended, "roll_back")
            return super().seen()

    with pytest.raises(RoundFailed):
        fleet.store.checkpoint(LOG, Waiting(fleet.witness, cosigns=False))
    assert published(fleet) == (fleet.history().manifest, False)


def test_a_witness_that_refuses_the_log_delays_no_end(fleet: Rolling) -> None:
    fleet.start()

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(fleet.witness, name)

        def cosign(self, note: bytes, proof: Proof) -> bytes:
            raise Refused("the witness does not cosign")

    outcome = operate(replace(fleet.context, witness=Refusing()), "kill")
    assert (outcome.undelivered, outcome.unwitnessed) == ("", "the witness does not cosign")
    assert published(fleet) == (outcome.history.manifest, False)
    with pytest.raises(Refused, match="has ended"):  # it was informed all the same
        fleet.witness.begin(rollout().hash + bytes(2))


def test_without_a_folder_an_end_waits_for_the_witness(fleet: Rolling) -> None:
    fleet.start()
    outcome = operate(replace(away(fleet), folder=None), "kill")
    assert outcome.undelivered == "the witness does not answer"


def test_an_end_of_before_is_not_put_in_the_place_of_the_next_rollout(fleet: Rolling) -> None:
    fleet.start()
    first = fleet.history().document.hash
    operate(away(fleet), "kill")
    again = rollout(metadata=rollout().metadata.model_copy(update={"revision": 2}))
    started = fleet.start(again).history.manifest
    assert published(fleet) == (started, True)
    with pytest.raises(Refused, match="has ended"):  # it was informed of it by then
        fleet.witness.begin(first + bytes(2))
    for _ in range(2):
        assert fleet.decide().verdict == "roll_back"
        assert published(fleet) == (started, True)


class Broken(Exception):
    """The process ended here."""


STEPS = ("follow", "publish", "uncosigned", "write", "checkpoint", "write again", "end")
"""What an end does in turn; a crash may come before each, and so after the one before it."""


def break_at(fleet: Rolling, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    name, _, again = step.partition(" ")
    owner: Any = {"write": directory, "end": fleet.witness, "hold": fleet.witness}.get(name, fleet.store)
    whole: Callable[..., Any] = getattr(owner, name)
    left = [None] if again else []

    def breaking(*given: Any, **named: Any) -> Any:
        if not left:
            raise Broken
        left.pop()
        return whole(*given, **named)

    monkeypatch.setattr(owner, name, breaking)


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_of_a_rollback_is_continued_with_the_same_bytes(
    live: Rolling, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Once devices may have seen the end, it is the one that they find cosigned later."""
    before = live.entries()
    with monkeypatch.context() as patch:
        break_at(live, patch, step)
        with pytest.raises(Broken):
            operate(live.context, "roll_back")
    left, seen = live.entries(), published(live)
    reached = step in STEPS[4:]
    assert seen[0].state == ("rolled_back" if reached else "live")
    live.now += timedelta(minutes=5)
    operate(live.context, "roll_back")
    assert live.entries()[: len(left)] == left
    kinds = [each.split(b"\n")[1] for each in live.entries()[len(before) :]]
    assert kinds == [b"decision", b"manifest"]
    assert published(live) == (live.history().manifest, True)
    assert not reached or published(live)[0] == seen[0]
    with pytest.raises(Refused, match="has ended"):
        ask(live)
    assert sound(live)


# Holds.


def test_the_witness_grants_nothing_while_a_rollout_is_held(live: Rolling) -> None:
    """The aggregator that asks past its own hold is refused. The control: after `resume` it is granted."""
    assert ask(live)
    for number in (1, 2):
        assert operate(live.context, "hold").unwitnessed == ""
        with pytest.raises(Refused, match="an operator holds"):
            ask(live)
        live.now += timedelta(days=1)
        operate(live.context, "resume")
        assert ask(live)
        assert len(live.history().of("hold")) == number
    assert live.week("live", 1).verdict == "expand"


def test_a_hold_during_the_gates_computation_stops_the_grant(fleet: Rolling) -> None:
    fleet.start()
    fleet.now += WEEK
    fleet.release("gate", 1)
    computed = fleet.witness.stages.recompute

    def held_meanwhile(evidence: Any) -> Any:
        found = computed(evidence)
        fleet.witness.hold(rollout().hash + b"\1\0")
        return found

    fleet.witness.stages.recompute = held_meanwhile
    with pytest.raises(Refused, match="nothing expands: an operator holds"):
        fleet.decide()
    fleet.witness.stages.recompute = computed
    fleet.witness.resume(rollout().hash + b"\1\0")
    assert fleet.decide().verdict == "expand"


def test_a_hold_stands_while_the_witness_is_away_and_is_reported_by_the_next_call(live: Rolling) -> None:
    stage = published(live)
    held = operate(away(live), "hold")
    assert (held.history.held, held.unwitnessed) == (True, "the witness does not answer")
    assert published(live) == stage, "devices stay in their stage"
    assert ask(live), "the witness does not know of it"
    live.now += timedelta(days=7)
    live.release("live", 1)
    outcome = live.decide()
    assert (outcome.verdict, outcome.decision) == ("hold", None)
    with pytest.raises(Refused, match="an operator holds"):
        ask(live)
    away_again = operate(away(live), "resume")
    assert away_again.unwitnessed == "the witness does not answer"
    with pytest.raises(Refused, match="an operator holds"):
        ask(live)
    assert live.decide().verdict == "expand"
    assert sound(live)


def test_reports_of_holds_may_come_late_or_be_missed(live: Rolling, tmp_path: Path) -> None:
    """Whatever order they come in, the highest number counts; a restart forgets none."""

    def report(what: str, number: int) -> None:
        getattr(live.witness, what)(rollout().hash + number.to_bytes(2, "little"))

    report("resume", 1)
    report("hold", 1)  # it comes after its end
    assert ask(live)
    report("hold", 3)
    report("resume", 2)
    with pytest.raises(Refused, match="an operator holds"):
        ask(live)
    again = Witness(WITNESS, bytes(32), tmp_path / "witness", LOG_PUBLIC, lambda: live.now)
    with pytest.raises(Refused, match="an operator holds"):
        again.grant(FIRST)
    report("resume", 3)
    assert ask(live)


@pytest.mark.parametrize("step", ["follow", "publish", "checkpoint", "write", "hold"])
def test_a_crash_of_a_hold_is_continued(live: Rolling, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Whatever of it is in the log, the witness knows after the next call."""
    with monkeypatch.context() as patch:
        break_at(live, patch, step)
        with pytest.raises(Broken):
            operate(live.context, "hold")
    assert live.history().held == (step != "follow")
    if live.history().held:
        live.decide()
    else:
        operate(live.context, "hold")
    assert len(live.history().of("hold")) == 1
    with pytest.raises(Refused, match="an operator holds"):
        ask(live)
    assert sound(live)


# Grants in their time.


def time_of(manifest: RolloutManifest | None) -> tuple[Any, Any]:
    assert manifest is not None
    time = Grant.decode(manifest.grant).time
    assert time is not None
    return time


def test_a_renewed_stage_gets_another_grant_and_keeps_its_own_without_the_witness(live: Rolling) -> None:
    stage = live.history().manifest
    assert time_of(stage) == (live.now, live.now + rollout().lease)
    live.now += timedelta(days=4)
    renewed = live.decide().history.manifest
    assert time_of(renewed) == (live.now, live.now + rollout().lease)
    live.now += timedelta(days=4)
    kept = control.decide(away(live), rollout()).history.manifest
    assert time_of(kept) == time_of(renewed)
    assert kept is not None
    assert kept.issued == live.now
    held = operate(live.context, "hold").history.manifest
    assert time_of(held) == time_of(renewed), "the newest, and none while it is held"
    assert sound(live)


def test_no_grant_lasts_longer_than_the_rollout(fleet: Rolling) -> None:
    """Of a stage nor of completion, which is granted until then; after it nothing is signed again."""
    last = rollout().metadata.model_copy(update={"expires": (fleet.now + 4.5 * WEEK).date()})
    about = rollout(metadata=last)
    fleet.start(about)
    for what in ("gate", "live", "live", "live"):
        fleet.now += WEEK
        fleet.release(what, 1)
        fleet.decide(about)
    stage = fleet.history(about).manifest
    assert time_of(stage) == (fleet.now - WEEK, fleet.now)
    end, done = about.end, control.complete(fleet.context, about).history.manifest
    assert time_of(done) == (fleet.now, end)
    assert end - fleet.now < about.lease
    request = GrantRequest(Asked(about.hash, "live", 3, about.stages[3].share), b"", b"", (), ()).encode()
    assert Grant.decode(fleet.witness.grant(request)).time == (fleet.now, end)
    fleet.now = end
    with pytest.raises(Refused, match="the rollout expired"):
        fleet.witness.grant(request)


def test_verify_names_a_grant_that_lasts_longer_than_the_rollout(live: Rolling) -> None:
    """The control is the same log with the witness's own grant."""
    assert sound(live)
    stage = live.history().manifest
    assert stage is not None
    longer = Grant.sign(stage.asked, live.now, live.history().expires + WEEK, WITNESS).encode()
    later = replace(stage, sequence=stage.sequence + 1, grant=longer)
    live.store.publish("manifest", rollout().hash.hex(), later.entry())
    found = verify(live.store, live.history(), live.judge, PUBLIC)
    assert [each.split(": ", 1)[1] for each in found] == ["the witness's grant lasts longer than the rollout"]


def test_a_log_and_a_journal_of_before_grants_had_a_time_go_on(
    fleet: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stages that were granted then verify, and the next one is granted; none of theirs is signed again."""
    fleet.start()
    with monkeypatch.context() as before:
        before.setattr(
            Grant, "sign", lambda asked, issued, expires, key: Grant(None, key.sign(asked.message(None)))
        )
        live = fleet.week("gate", 1).history.manifest
    assert live is not None
    assert len(live.grant) == 64
    (file,) = (fleet.folder.parent / "witness").glob("*-grant-live-1")
    body = file.read_bytes().replace(b',"end":', b',"old-end":').replace(b',"lease":', b',"old-lease":')
    file.write_bytes(body)
    with pytest.raises(Refused, match="grants said no time"):
        ask(fleet)
    fleet.now += timedelta(days=4)
    assert fleet.decide().history.manifest == replace(
        live, sequence=live.sequence + 1, issued=fleet.now, expires=fleet.now + rollout().lease
    )
    assert fleet.week("live", 1).verdict == "expand"
    assert time_of(fleet.history().manifest)[0] == fleet.now
    assert sound(fleet)

"""A rollout over a real log and witness, from start to end; what breaks off goes on with the same bytes."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from hashlib import sha256
from typing import Any

import pytest

from fa_core.errors import Refused
from fa_core.privacy.ledger import DEFAULT_POLICIES
from fa_core.publication import directory
from fa_core.publication.artefact import ArtefactManifest
from fa_core.publication.proofs import Publication, Seen, verified
from fa_core.publication.rollout import RolloutManifest, rollout_name
from fa_core.publication.signed import SignedDocument
from fa_core.rollout import control, models, record
from fa_core.rollout.controlled import ControlledResult
from fa_core.rollout.decision import Decision, manifest_of
from fa_core.rollout.document import Model
from fa_core.rollout.states import fold
from fa_core.rollout.verify import verify
from fa_core.store import Store
from tests.rollout import rolling
from tests.rollout.rolling import LOG, RESULT, WEEK, WITNESS, Away, Rolling, plans, rollout, signed

WITNESS_PUBLIC = WITNESS.public_key().public_bytes_raw()


def published(fleet: Rolling) -> RolloutManifest:
    """The manifest that a device finds, with every proof."""
    data = directory.read(fleet.folder, rollout_name("default", "okay_nabu"))
    assert data is not None
    found = verified(Publication.decode(data), LOG.public_key().public_bytes_raw(), WITNESS_PUBLIC, Seen())
    assert SignedDocument.from_entry("rollout", found.entries[0]).hash == rollout().hash
    return RolloutManifest.from_entry(found.entries[1])


def test_a_good_candidate_goes_through_every_stage(fleet: Rolling) -> None:
    """Every manifest is published with its proofs, live ones are granted, and all of it verifies."""
    fleet.start()
    seen = [published(fleet)]
    for what, verdict in (("gate", 0), ("gate", 1), ("live", 1), ("live", 1), ("live", 1)):
        outcome = fleet.week(what, verdict)
        assert outcome.verdict == ("expand" if verdict else "hold")
        seen.append(published(fleet))
    done = control.complete(fleet.context, rollout())
    seen.append(published(fleet))
    assert done.history.status(fleet.now) == "complete"
    assert [(each.state, str(each.share)) for each in seen] == [
        ("shadow", "0"), ("shadow", "0"), ("live", "1/10"), ("live", "1/2"), ("live", "1"), ("live", "1"),
        ("complete", "1"),
    ]  # fmt: skip
    assert [each.sequence for each in seen] == list(range(7))
    assert all((each.granted(WITNESS_PUBLIC) is not None) == (each.state != "shadow") for each in seen)
    assert verify(fleet.store, fleet.history(), fleet.judge, WITNESS_PUBLIC) == []
    assert fleet.store.verify_log(LOG.public_key(), WITNESS.public_key()) == []


def test_a_worse_candidate_is_taken_back_for_good(fleet: Rolling) -> None:
    fleet.start()
    assert fleet.week("gate", -1).verdict == "roll_back"
    assert (published(fleet).state, published(fleet).share) == ("rolled_back", Fraction(0))
    before = fleet.entries()
    fleet.now += WEEK
    fleet.release("gate", 1)
    assert fleet.decide().verdict == "roll_back"
    for action in ("hold", "resume", "kill"):
        with pytest.raises(Refused, match="ended for good"):
            control.operate(fleet.context, rollout(), action, "again")
    with pytest.raises(Refused, match="new revision"):
        fleet.start()
    assert fleet.entries() == before
    assert verify(fleet.store, fleet.history(), fleet.judge, WITNESS_PUBLIC) == []


def test_an_end_stands_whatever_is_logged_after_it(fleet: Rolling) -> None:
    """A manifest of a higher sequence that is live again changes no state, and is named."""
    fleet.start()
    live = fleet.week("gate", 1).history.manifest
    assert live is not None
    fleet.week("live", -1)
    end = fleet.history().manifest
    assert end is not None
    later = replace(live, sequence=end.sequence + 5, issued=fleet.now + WEEK, expires=fleet.now + 2 * WEEK)
    fleet.store.publish("manifest", rollout().hash.hex(), later.entry())
    began = fleet.history().of("look")[0]
    again = replace(began, action="resume", next=replace(began.next, sequence=end.sequence + 6))
    fleet.store.publish("decision", rollout().hash.hex(), again.entry())
    assert fleet.history().status(fleet.now) == "rolled_back"
    assert fleet.history().manifest == end
    assert fleet.decide().verdict == "roll_back"
    assert published(fleet) == end
    problems = verify(fleet.store, fleet.history(), fleet.judge, WITNESS_PUBLIC)
    assert any("renews none" in each for each in problems)
    assert any("after the rollout had ended" in each for each in problems)


class Broken(Exception):
    """The process ended here."""


def raise_broken(*given: object) -> None:
    raise Broken


STEPS = ("checkpoint", "grant", "follow", "publish", "write")
"""What an expansion does in turn; a crash may come before and after each."""


def break_at(fleet: Rolling, monkeypatch: pytest.MonkeyPatch, step: str, *, after: bool) -> None:
    owner: Any = {"grant": fleet.witness, "write": directory}.get(step, fleet.store)
    whole: Callable[..., Any] = getattr(owner, step)

    def breaking(*given: Any, **named: Any) -> Any:
        if after:
            whole(*given, **named)
        raise Broken

    monkeypatch.setattr(owner, step, breaking)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_a_crash_repeats_the_same_bytes(
    fleet: Rolling, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
) -> None:
    """Whatever was written before stays, what follows from it is the same, and nothing is there twice."""
    fleet.start()
    fleet.now += WEEK
    fleet.release("gate", 1)
    with monkeypatch.context() as patch:
        break_at(fleet, patch, step, after=after)
        with pytest.raises(Broken):
            fleet.decide()
    left = fleet.entries()
    fleet.now += timedelta(minutes=5)
    again = fleet.decide()
    assert fleet.entries()[: len(left)] == left
    kinds = [each.split(b"\n")[1] for each in fleet.entries()]
    assert kinds == [b"decision", b"manifest", b"decision", b"manifest"]
    decision = Decision.from_entry(fleet.entries()[2])
    assert (decision.at == fleet.now) == (len(left) == 2)
    assert published(fleet) == fleet.history().manifest == manifest_of(rollout(), decision)
    assert again.history.status(fleet.now) == "live"
    assert verify(fleet.store, fleet.history(), fleet.judge, WITNESS_PUBLIC) == []


def test_a_crash_at_the_start_is_continued(fleet: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(record, "log_manifest", raise_broken)
        with pytest.raises(Broken):
            fleet.start()
    assert fleet.history().status(fleet.now) == "tested"
    fleet.start()
    assert fleet.history().status(fleet.now) == "shadow"
    assert len(fleet.entries()) == 2
    assert published(fleet) == fleet.history().manifest


def test_the_same_look_is_decided_once(fleet: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two operators at once: the second finds the look decided when it comes to write."""
    fleet.start()
    fleet.now += WEEK
    fleet.release("gate", 0)
    other = record.record
    raced: list[bytes] = []

    def late(*given: Any, **named: Any) -> Any:
        if not raced:
            raced.append(b"")
            fleet.decide()
            raced[:] = fleet.entries()
            fleet.now += timedelta(minutes=1)
        return other(replace(given[0], now=fleet.now), *given[1:], **named)

    monkeypatch.setattr(control, "record", late)
    assert fleet.decide().verdict == "hold"
    assert fleet.entries() == raced


@pytest.mark.parametrize("cosigns", [True, False])
def test_without_the_witness_nothing_expands_and_the_stage_is_renewed(fleet: Rolling, cosigns: bool) -> None:
    fleet.start()
    first = published(fleet)
    fleet.now += WEEK
    fleet.release("gate", 1)
    away = replace(fleet.context, witness=Away(fleet.witness, cosigns=cosigns))
    with pytest.raises(Refused, match=r"nothing expands.*does not answer"):
        control.decide(away, rollout())
    renewed = fleet.history().manifest
    assert renewed is not None
    assert (renewed.state, renewed.sequence, renewed.issued) == ("shadow", first.sequence + 1, fleet.now)
    assert published(fleet) == (renewed if cosigns else first)
    assert fleet.decide().verdict == "expand"  # the look was not used up
    assert published(fleet).share == Fraction(1, 10)
    assert verify(fleet.store, fleet.history(), fleet.judge, WITNESS_PUBLIC) == []


def test_a_lease_is_renewed_once_half_of_it_is_over(fleet: Rolling) -> None:
    fleet.start()
    first = published(fleet)
    fleet.now += timedelta(days=3)
    assert fleet.decide().verdict == "hold"
    assert published(fleet) == first
    fleet.now += timedelta(days=1)
    fleet.decide()
    assert published(fleet) == replace(
        first, sequence=first.sequence + 1, issued=fleet.now, expires=fleet.now + WEEK
    )


def test_an_expired_rollout_is_not_renewed(fleet: Rolling) -> None:
    """Its leases end with it, so whoever is kept from newer manifests is back on the baseline."""
    last = rollout().metadata.model_copy(update={"expires": (fleet.now + WEEK / 2).date()})
    about = rollout(metadata=last)
    expires = fleet.start(about).history.manifest
    assert expires is not None
    assert expires.expires == fleet.history(about).expires
    fleet.now = fleet.history(about).expires
    assert fleet.history(about).status(fleet.now) == "expired"
    with pytest.raises(Refused, match="is expired"):
        fleet.decide(about)
    with pytest.raises(Refused, match="is expired"):
        fleet.start(about)
    assert len(fleet.entries()) == 2


def test_a_look_without_a_release_is_skipped(fleet: Rolling) -> None:
    fleet.start()
    fleet.now += WEEK
    assert "look 1 is due" in fleet.decide().why
    assert fleet.week("gate", 1).verdict == "expand"
    looks = fleet.history().of("look")
    assert [(each.number, each.verdict, each.releases[0]) for each in looks] == [
        (1, "hold", None),
        (2, "expand", None),
    ]
    assert verify(fleet.store, fleet.history(), fleet.judge, WITNESS_PUBLIC) == []


def test_a_second_release_of_one_look_counts_for_nothing(fleet: Rolling) -> None:
    """Looks are planned: who asks again until the answer is good gets the first one's."""
    fleet.start()
    fleet.now += WEEK
    fleet.release("gate", 0)
    fleet.release("gate", 1, rolling.whole_hour(fleet.now) + timedelta(hours=1))
    assert fleet.decide().verdict == "hold"
    assert fleet.decide().decision is None
    assert len(fleet.history().of("look")) == 1


def test_after_the_last_look_nothing_expands(fleet: Rolling) -> None:
    fleet.start()
    for _ in range(rollout().gate.looks):
        fleet.week("gate", 0)
    assert "all 4 looks were taken" in fleet.week("gate", 1).why


def test_held_by_an_operator_it_is_rolled_back_but_does_not_expand(fleet: Rolling) -> None:
    fleet.start()
    control.operate(fleet.context, rollout(), "hold", "we look into something")
    assert published(fleet).state == "shadow"
    outcome = fleet.week("gate", 1)
    assert (outcome.verdict, outcome.decision) == ("hold", None)
    control.operate(fleet.context, rollout(), "resume", "it was nothing")
    assert fleet.decide().verdict == "expand"
    control.operate(fleet.context, rollout(), "hold", "again")
    assert fleet.week("live", -1).verdict == "roll_back"


def test_a_second_rollout_for_the_wake_word_is_refused(fleet: Rolling) -> None:
    fleet.start()
    again = rollout(metadata=rollout().metadata.model_copy(update={"revision": 2}))
    other = rollout(metadata=rollout().metadata.model_copy(update={"name": "embed-3"}))
    for about in (again, other):
        with pytest.raises(Refused, match="embed-2@1 is under way"):
            fleet.start(about)
    same = rollout(lease=timedelta(days=2))
    with pytest.raises(Refused, match="count `revision` up"):
        fleet.start(same)
    control.operate(fleet.context, rollout(), "kill", "the wrong margins")
    first = fleet.start(again).history.manifest
    assert first is not None
    assert first.sequence == 2  # above all of the first rollout's


def test_what_a_start_needs(fleet: Rolling) -> None:
    about = rollout()

    def refused(match: str, **changed: Any) -> None:
        given: dict[str, Any] = {
            "document": about,
            "signed": signed(about),
            "result": RESULT,
            "plans": plans(),
        } | changed
        with pytest.raises(Refused, match=match):
            control.start(fleet.context, **given)

    refused("signature", signed=signed(rollout(lease=WEEK / 7)))
    refused("signature", signed=replace(signed(about), signature=bytes(64)))
    refused("names the test set's result", result=replace(RESULT, level=0.9))
    for bad, why in (
        (replace(RESULT, misses_below=0.005), "may miss 1.00% more"),
        (replace(RESULT, candidate="cd" * 32), "of other models"),
        (replace(RESULT, false_wakes_below=0.1), "times an hour more"),
    ):
        named = with_result(bad)
        refused(why, document=named, signed=signed(named), result=bad)
    unknown = with_candidate(Model(version="embed-2", sha256="ee" * 32))
    other = replace(RESULT, candidate="ee" * 32)
    unknown = unknown.model_copy(update={"gate": unknown.gate.model_copy(update={"test_set": other.hash})})
    refused("not in the log", document=unknown, signed=signed(unknown), result=other)
    renamed = with_candidate(Model(version="embed-9", sha256=rolling.hashed("embed-2")))
    refused("is embed-2 for", document=renamed, signed=signed(renamed))
    elsewhere = replace(RESULT, candidate_bases=("ab" * 32,))
    named = with_result(elsewhere)
    refused("over another base", document=named, signed=signed(named), result=elsewhere)
    rules = policy_of(fleet.store)
    asks = with_candidate(Model(version="careful-1", sha256=rules))
    tested = replace(RESULT, candidate=rules)
    asks = asks.model_copy(update={"gate": asks.gate.model_copy(update={"test_set": tested.hash})})
    refused("of kind policy", document=asks, signed=signed(asks), result=tested)
    poor = replace(DEFAULT_POLICIES["zcdp"], family=Fraction(3, 50))
    rolling.declare(fleet.store, poor)
    refused("no budget for its look 4", document=about)
    assert fleet.entries() == []


def policy_of(store: Store) -> str:
    """Put a policy in the log; return its hash."""
    data = b'{"rules":[{"action":"confirm"}]}'
    digest = sha256(data).hexdigest()
    manifest = ArtefactManifest(
        "policy", "careful", "careful-1", "okay_nabu", "policy-1", "", digest, len(data), "Apache-2.0", "us"
    )
    models.add(store, manifest, data, rolling.AUTHOR)
    return digest


def with_result(result: ControlledResult) -> Any:
    gate = rollout().gate.model_copy(update={"test_set": result.hash})
    return rollout(gate=gate)


def with_candidate(model: Model) -> Any:
    return rollout(models=rollout().models.model_copy(update={"candidate": model}))


def test_the_start_says_what_is_reserved(fleet: Rolling) -> None:
    decision = fleet.start().decision
    assert decision is not None
    budget = decision.gate["budget"]
    assert len(budget["charges"]) == 4 + 3
    assert Fraction(budget["total"]) == sum(Fraction(each["cost"]) for each in budget["charges"])
    assert decision.gate["test_set"]["test_set"] == RESULT.test_set


def test_a_fold_takes_the_first_of_two_decisions(fleet: Rolling) -> None:
    """One that was written past the store's own check is named, and changes nothing."""
    fleet.start()
    made = fleet.week("gate", 0).decision
    assert made is not None
    forged = replace(
        made, verdict="expand", next=replace(made.next, state="live", stage=1, share=Fraction(1, 10))
    )
    fleet.store.publish("decision", rollout().hash.hex(), forged.entry())
    assert fleet.history().stage == 0
    assert fleet.history().repeated == (forged,)
    problems = verify(fleet.store, fleet.history(), fleet.judge, WITNESS_PUBLIC)
    assert any("was decided twice" in each for each in problems)


def test_verify_names_a_decision_that_its_releases_do_not_lead_to(fleet: Rolling) -> None:
    """The control: the same log verifies with the gate that decided."""
    fleet.start()
    fleet.week("gate", 1)

    class Stricter(rolling.StandIn):
        def looks(self, document: Any, releases: Any) -> Any:
            return replace(super().looks(document, releases), verdict="hold")

    assert verify(fleet.store, fleet.history(), fleet.judge, WITNESS_PUBLIC) == []
    problems = verify(fleet.store, fleet.history(), Stricter(), WITNESS_PUBLIC)
    assert any("lead to other numbers" in each for each in problems)
    assert any("not granted" in each for each in verify(fleet.store, fleet.history(), fleet.judge, bytes(32)))


def test_a_history_is_a_fold_of_entries_alone(fleet: Rolling) -> None:
    fleet.start()
    fleet.week("gate", 1)
    entries = [(each.kind, each.entry) for each in fleet.store.rollouts()]
    garbage = [("decision", b"unheard-log-1\ndecision\n{}"), ("manifest", b"no manifest")]
    assert fold([*entries, *garbage]) == fold(entries) == fleet.history()  # type: ignore[list-item]

"""Makes the vectors of rollouts: one device's published files in order, a fault for each check among them.

A refused file's entries stand in a log of their own that goes on from what the device took last.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.canonical_json import canonical
from fa_core.conformance.world import FIRST, NOW, POPULATION, SKEW, World, raw, seconds
from fa_core.merkle import Tree, leaf_hash
from fa_core.publication.proofs import LoggedEntry, Publication
from fa_core.publication.signed import SignedDocument
from fa_core.secagg.identity import population_id
from fa_core.trust import checkpoint as log
from tests.conformance.keys import key, world
from tests.conformance.product import Product

Json = dict[str, Any]
WORD: Final = "okay_nabu"
DAY: Final = 86_400
T: Final = seconds(NOW)
SECRET: Final = sha256(b"a secret below a tenth, 3").digest()


def document(baseline: str, candidate: str, floor: str = "micro-1", **changes: Any) -> bytes:
    """Return a rollout's document, of what a device reads."""
    models = {role: {"sha256": _hash(each), "version": each} for role, each in
              (("baseline", baseline), ("candidate", candidate))}  # fmt: skip
    body = {
        "metadata": {"name": candidate, "revision": 1, "expires": "2026-03-31"}, "population": POPULATION,
        "wake_word": WORD, "models": models | {"floor": floor}, "lease": "7d",
        "stages": [{"shadow": "1"}, {"live": "0.1"}, {"live": "1/2"}, {"live": "1"}],
    }  # fmt: skip
    return canonical(body | changes)


def _hash(version: str) -> str:
    return sha256(version.encode()).hexdigest()


@dataclass
class Publisher:
    """Publishes files of one log.

    Attributes:
        entries: of the log as the device took it last.
    """

    world: World
    entries: list[bytes] = field(default_factory=lambda: list(FIRST))
    earlier: list[int] = field(default_factory=lambda: [len(FIRST)])

    def manifest(self, about: bytes, sequence: int, state: str, stage: int = 0, **changes: Any) -> Json:
        """Return a manifest of a document, right in everything unless `changes` say otherwise."""
        body = json.loads(about)
        share = {"live": ["0", "1/10", "1/2", "1"][stage % 4], "complete": "1"}.get(state, "0")
        found = {
            "rollout": sha256(about).hexdigest(), "population": POPULATION, "wake_word": WORD,
            "sequence": sequence, "state": state, "stage": stage, "share": share,
            "baseline": body["models"]["baseline"]["sha256"],
            "candidate": body["models"]["candidate"]["sha256"], "issued": T, "expires": T + 7 * DAY,
            "decision": "", "grant": "",
        }  # fmt: skip
        if state in ("live", "complete"):
            found["grant"] = self.grant(found)
        return found | changes

    def grant(
        self, about: Json, issued: int = T, expires: int = T + 7 * DAY, by: Ed25519PrivateKey | None = None
    ) -> str:
        """Return a grant of a manifest's stage."""
        body = {each: about[each] for each in ("rollout", "state", "stage", "share")}
        signed = canonical(body | {"issued": issued, "expires": expires})
        signature = (by or self.world.witness_key).sign(b"unheard-rollout-stage-2\n" + signed)
        return (
            b"\x02" + b"".join(each.to_bytes(8, "little") for each in (issued, expires)) + signature
        ).hex()

    def grant_of_before(self, about: Json) -> str:
        """Return a grant without times."""
        body = {each: about[each] for each in ("rollout", "state", "stage", "share")}
        return self.world.witness_key.sign(b"unheard-rollout-stage-1\n" + canonical(body)).hex()

    def signed(self, about: bytes, signer: Ed25519PrivateKey | None = None) -> bytes:
        """Return the log's entry of a document."""
        return SignedDocument.sign("rollout", about, signer or self.world.plan_key).entry()

    def file(
        self,
        shown: list[bytes],
        *,
        taken: bool = False,
        at: int = 0,
        log_key: Ed25519PrivateKey | None = None,
        witness_key: Ed25519PrivateKey | None = None,
        cosigned: bool = True,
        earlier: list[int] | None = None,
        before: list[bytes] | None = None,
    ) -> Publication:
        """Return a file that shows entries.

        Args:
            taken: whether the log goes on from here. at: the witness's time less `T`, seconds.
            earlier: sizes from which consistency is proved. before: another log than the one so far.
        """
        entries = list(self.entries if before is None else before)
        entries += [each for each in shown if each not in entries]
        tree = Tree([leaf_hash(each) for each in entries])
        signer = log_key or self.world.log_key
        note = log.sign(tree.size, tree.root, signer)
        if cosigned:
            moment, witness = NOW + timedelta(seconds=at), witness_key or self.world.witness_key
            note += log.cosign(note, None, (), signer.public_key(), witness, moment)
        places = [entries.index(each) for each in shown]
        sizes = self.earlier if earlier is None else earlier
        found = Publication(
            note,
            {size: tree.consistency(size) for size in sizes if size < tree.size},
            tuple(
                LoggedEntry(place, each, tree.inclusion(place))
                for place, each in zip(places, shown, strict=True)
            ),
        )
        if taken:
            self.entries, self.earlier = entries, [len(FIRST), tree.size]
        return found


def entry(manifest: Json) -> bytes:
    """Return the log's entry of a manifest."""
    return log.entry("manifest", canonical(manifest))


@dataclass
class Script:
    """Asks the package's device, and keeps the steps."""

    device: Product
    publisher: Publisher
    steps: list[Json] = field(default_factory=list)

    def file(self, name: str, found: Publication | bytes, right: str, now: int = T) -> None:
        """Ask about a published file; `right`: the state that is then held, "" where it is refused."""
        data = found if isinstance(found, bytes) else found.encode()
        answer = self.ask(name, {"op": "publication", "file": data.decode(), "now": now})
        said = answer.get("state", "") if right else answer.get("refused")
        assert said == (right or "ROLLOUT"), (name, answer)

    def refused(self, name: str, about: bytes, manifest: Json, now: int = T, **how: Any) -> None:
        """Ask about a file of a document and a manifest that must be refused."""
        shown = [self.publisher.signed(about), entry(manifest)]
        self.file(name, self.publisher.file(shown, **how), "", now)

    def taken(self, name: str, about: bytes, manifest: Json, now: int = T, **how: Any) -> None:
        """Ask about one that must be taken."""
        shown = [self.publisher.signed(about), entry(manifest)]
        self.file(name, self.publisher.file(shown, taken=True, **how), manifest["state"], now)

    def acts(self, name: str, now: int, right: str) -> None:
        """Ask which model acts."""
        answer = self.ask(name, {"op": "acts", "now": now})
        assert answer == {"acts": right}, (name, answer)

    def ask(self, name: str, question: Json) -> Json:
        """Ask anything."""
        answer = self.device.ask(question)
        self.steps.append({"name": name, "ask": question, "answer": answer})
        return answer


def rollouts(device: Product) -> Iterator[Json]:
    """Yield the steps."""
    here = world("rollouts")
    publisher = Publisher(here)
    script = Script(device, publisher)
    revoked, late = key("rollouts revoked"), key("rollouts late")
    pins = here.pins()
    pin = pins["plan_keys"][0]
    pins["plan_keys"] = [
        pin | {"last": T + 400 * DAY},
        {**pin, "key": raw(revoked).hex()},
        {"key": raw(late).hex(), "first": T + DAY, "last": T + 2 * DAY},
    ]
    pins["revoked"] = [raw(revoked).hex()]
    tree = Tree([leaf_hash(each) for each in FIRST])
    script.ask(
        "a device that follows rollouts",
        {
            "op": "rollouts", "pins": pins, "population": population_id(POPULATION).hex(), "wake_word": WORD,
            "seen": {"size": tree.size, "root": tree.root.hex()}, "shipped": ["micro-1"],
            "secret": SECRET.hex(),
        },
    )  # fmt: skip
    one = document("micro-1", "embed-2")
    _files(script, one)
    _documents(script, one, revoked, late)
    _forms(script, one)
    _stages(script, one)
    _grants(script, one)
    _first(script, one)
    _away(script, one)
    _after(script, one)
    yield from script.steps


def _files(script: Script, one: bytes) -> None:
    publisher = script.publisher
    manifest = publisher.manifest(one, 1, "shadow")
    shown = [publisher.signed(one), entry(manifest)]
    right = publisher.file(shown).encode()
    script.file("a file with a space", right.replace(b",", b", ", 1), "")
    more = canonical(json.loads(right) | {"more": 1})
    script.file("a file with a key more", more, "")
    other = key("rollouts stranger")
    how: Mapping[str, dict[str, Any]] = {
        "another log": {"log_key": other},
        "another witness": {"witness_key": other},
        "no cosignature": {"cosigned": False},
        "a log that is not shown to extend that of invitations": {"earlier": []},
        "a log that is not that of invitations": {"before": [b"another", *FIRST[1:]]},
        "a witness's time to come": {"at": seconds(NOW + SKEW) + 1 - T},
    }
    for name, each in how.items():
        script.refused(name, one, manifest, **each)
    body = json.loads(right)
    for name, changes in {
        "a size with a zero before it": {"consistency": body["consistency"] | {"03": []}},
        "an entry with a key more": {"entries": [body["entries"][0] | {"more": 1}, body["entries"][1]]},
    }.items():
        script.file(name, canonical(body | changes), "")
    body["entries"][1]["index"] = 0
    script.file("an entry that is not in the log", canonical(body), "")
    script.file("a manifest without its document", publisher.file(shown[1:]), "")
    script.file("a file of three entries", publisher.file([*shown, FIRST[0]]), "")
    script.file("a manifest before its document", publisher.file(shown[::-1]), "")


def _documents(script: Script, one: bytes, revoked: Ed25519PrivateKey, late: Ed25519PrivateKey) -> None:
    publisher, models = script.publisher, json.loads(one)["models"]
    manifest = publisher.manifest(one, 1, "shadow")
    for name, signer in {
        "a document of a revoked key": revoked,
        "a document of a key whose time has not begun": late,
        "a document of a key that is not pinned": key("rollouts stranger"),
    }.items():
        script.file(name, publisher.file([publisher.signed(one, signer), entry(manifest)]), "")
    right = SignedDocument.sign("rollout", one, publisher.world.plan_key)
    wrong = SignedDocument("rollout", one, right.key, bytes(64)).entry()
    script.file("a document whose signature does not hold", publisher.file([wrong, entry(manifest)]), "")
    for name, changes in {
        "a document for another population": {"population": "offices"},
        "a document for another wake word": {"wake_word": "alexa"},
        "a document whose lease is no time": {"lease": "seven days"},
        "a document that is over": {"metadata": {"name": "embed-2", "revision": 1, "expires": "2026-03-01"}},
        "a document with a share above 1": {"stages": [{"shadow": "1"}, {"live": "1.1"}]},
        "a document with a share in another form": {"stages": [{"shadow": "1"}, {"live": "1e-1"}]},
        "a document with a floor of 501 characters": {"models": models | {"floor": "x" * 501}},
    }.items():
        other = document("micro-1", "embed-2", **changes)
        script.refused(name, other, publisher.manifest(other, 1, "shadow"))
    older = document("micro-0.9.10", "embed-2", floor="micro-0.1")
    script.refused(
        "a baseline older than what the device came with", older, publisher.manifest(older, 1, "shadow")
    )
    low = document("micro-1", "embed-2", floor="embed-2.1")
    script.refused("a candidate under the document's floor", low, publisher.manifest(low, 1, "shadow"))


def _forms(script: Script, one: bytes) -> None:
    manifest = script.publisher.manifest
    right, live = manifest(one, 1, "shadow"), manifest(one, 1, "live", 1)
    for name, changes in {
        "a manifest with a key more": {"more": 1},
        "a manifest of another rollout": {"rollout": "00" * 32},
        "a manifest of another baseline": {"baseline": "00" * 32},
        "a manifest of another candidate": {"candidate": "00" * 32},
        "a manifest for another population": {"population": "offices"},
        "a manifest for another wake word": {"wake_word": "alexa"},
        "a state that nobody knows": {"state": "paused"},
        "a share in shadow": {"share": "1/10"},
        "a manifest that ends as it begins": {"expires": T},
        "a manifest until the year 9000": {"issued": 221_845_391_999, "expires": 221_845_392_000},
        "a decision of 31 bytes": {"decision": "00" * 31},
        "a decision in capitals": {"decision": "AB" * 32},
        "a grant of another version": {"grant": "03" + live["grant"][2:]},
        "a grant of 80 bytes": {"grant": "02" + "00" * 79},
        "a sequence that is no whole number": {"sequence": True},
        "a sequence of 2^53": {"sequence": 2**53},
        "a manifest of a time to come": {"issued": T + DAY + 1, "expires": T + 2 * DAY},
    }.items():
        script.refused(name, one, right | changes)
    open_share = live | {"share": "2/20"}
    open_share |= {"grant": script.publisher.grant(open_share)}
    script.refused("a share in an open fraction", one, open_share)
    script.refused("a share of nothing", one, live | {"share": "0"})


def _stages(script: Script, one: bytes) -> None:
    publisher = script.publisher
    shadow = publisher.manifest(one, 1, "shadow")
    script.refused("a shadow that is a live stage", one, shadow | {"stage": 1})
    script.refused("a stage that does not exist", one, shadow | {"stage": 4})
    script.refused("a lease a second too long", one, shadow | {"expires": T + 7 * DAY + 1})
    other = publisher.manifest(one, 1, "live", 1) | {"share": "1/2"}
    script.refused("another share than was signed", one, other | {"grant": publisher.grant(other)})


def _grants(script: Script, one: bytes) -> None:
    publisher = script.publisher
    live, second = publisher.manifest(one, 1, "live", 1), publisher.manifest(one, 1, "live", 2)
    for name, grant in {
        "no grant": "",
        "a grant of another signer": publisher.grant(live, by=key("rollouts stranger")),
        "a grant of another stage": second["grant"],
        "a grant that has run out": publisher.grant(live, T - DAY, T),
        "a grant of a time to come": publisher.grant(live, T + DAY + 1, T + 2 * DAY),
        "a grant of before, to enter a stage": publisher.grant_of_before(live),
        "a grant whose times were changed": live["grant"][:2] + "00" + live["grant"][4:],
    }.items():
        script.refused(name, one, live | {"grant": grant})


def _first(script: Script, one: bytes) -> None:
    publisher = script.publisher
    manifest = publisher.manifest
    shadow = manifest(one, 2, "shadow")
    script.taken("the first file: shadow", one, shadow)
    script.taken("the same file again", one, shadow)
    script.refused("a manifest of before", one, manifest(one, 1, "shadow"))
    script.refused("another manifest of the same number", one, shadow | {"expires": T + DAY})
    script.refused("a log that does not extend the one seen", one, manifest(one, 3, "shadow"), earlier=[3])
    stage = manifest(one, 3, "live", 1)
    stage |= {"grant": publisher.grant(stage, T, T + DAY)}
    script.taken("live, on a device of the share", one, stage)
    script.acts("the lease's last second", T + 7 * DAY - 1, "candidate")
    script.acts("the lease is over", T + 7 * DAY, "baseline")
    script.acts("a clock a skew behind", T - DAY, "candidate")
    script.acts("a clock further behind", T - DAY - 1, "baseline")
    later = T + 2 * DAY
    renewed = stage | {"sequence": 4, "issued": later, "expires": later + 7 * DAY}
    script.refused("renewed without a grant", one, renewed | {"grant": ""}, later, at=2 * DAY)
    script.taken("renewed by a grant that has run out", one, renewed, later, at=2 * DAY)
    before = renewed | {"sequence": 5, "grant": publisher.grant_of_before(renewed)}
    script.taken("renewed by a grant of before", one, before, later, at=2 * DAY)


def _away(script: Script, one: bytes) -> None:
    """The witness is away."""
    publisher, later = script.publisher, T + 2 * DAY
    manifest = publisher.manifest
    killed, other = manifest(one, 6, "killed"), document("micro-1", "embed-3")
    script.refused(
        "a live stage without cosignature", one, manifest(one, 6, "live", 1), later, cosigned=False
    )
    script.refused(
        "another's end without cosignature", other, manifest(other, 6, "killed"), later, cosigned=False
    )
    script.refused(
        "an end of before without cosignature", one, manifest(one, 4, "killed"), later, cosigned=False
    )
    shown = [publisher.signed(one), entry(killed)]
    script.file("the end, without cosignature", publisher.file(shown, cosigned=False), "killed", later)
    script.refused("live again after the end", one, manifest(one, 7, "live", 1), later, at=2 * DAY)
    script.refused("another end after the end", one, manifest(one, 7, "rolled_back"), later, at=2 * DAY)
    script.taken("the end, cosigned", one, killed, later, at=2 * DAY)


def _after(script: Script, one: bytes) -> None:
    """Other rollouts follow."""
    publisher, later = script.publisher, T + 2 * DAY
    how: dict[str, Any] = {"now": later, "at": 2 * DAY}

    def manifest(about: bytes, sequence: int, state: str, stage: int = 0) -> Json:
        return publisher.manifest(about, sequence, state, stage, issued=later, expires=later + 7 * DAY)

    strange = document("other-1", "embed-3")
    script.refused("a rollout from another model", strange, manifest(strange, 8, "shadow"), **how)
    two = document("micro-1", "embed-3")
    script.refused("the end of a rollout that is not held", two, manifest(two, 8, "rolled_back"), **how)
    script.taken("the next rollout: shadow", two, manifest(two, 8, "shadow"), **how)
    script.refused("a rollout that another one followed", one, manifest(one, 9, "shadow"), **how)
    whole = manifest(two, 9, "complete", 3)
    script.refused(
        "completed after its grant", two, whole | {"grant": publisher.grant(whole, T, later)}, **how
    )
    script.taken("complete", two, whole, **how)
    script.acts("complete, a year later", T + 365 * DAY, "candidate")
    script.refused("a stage after it was complete", two, manifest(two, 10, "live", 1), **how)
    script.refused("a rollout from the model before", one_more := document("micro-1", "embed-4"),
                   manifest(one_more, 10, "shadow"), **how)  # fmt: skip
    three = document("embed-3", "embed-4", floor="embed-3")
    script.taken("a rollout from the completed one", three, manifest(three, 10, "shadow"), **how)
    low = document("embed-3", "embed-2.9", floor="embed-1")
    script.refused("a candidate under a floor that was seen", low, manifest(low, 11, "shadow"), **how)
    newer = document("embed-5", "embed-6")
    script.refused("a rollout from a newer model, in shadow", newer, manifest(newer, 11, "shadow"), **how)
    script.taken("a rollout from a newer model, live", newer, manifest(newer, 11, "live", 3), **how)
    script.acts("a share of everybody", later, "candidate")
    script.taken("rolled back", newer, manifest(newer, 12, "rolled_back"), **how)
    ended = document(
        "embed-5", "embed-7", metadata={"name": "embed-7", "revision": 1, "expires": "2026-03-01"}
    )
    script.taken(
        "complete, learned after the rollout's end", ended, manifest(ended, 13, "complete", 3), **how
    )
    script.taken("rolled back after it was complete", ended, manifest(ended, 14, "rolled_back"), **how)
    script.acts("after that", later, "baseline")

"""A task says one thing in one way; a device believes it for its signatures and its place in the log."""

import json
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.canonical_json import canonical
from fa_core.collection.checks import verify_offer
from fa_core.collection.task import MAX_BYTES, Offer, SignedTask, Task, Trusted, asked, to_sign
from fa_core.errors import BadInput
from fa_core.merkle import Tree, leaf_hash
from fa_core.secagg.identity import signed
from fa_core.trust import checkpoint
from fa_core.trust.collection_request import CollectionRequest
from tests.collection.setup import (
    HELPER,
    LAYOUT,
    LEADER,
    LOG,
    PARSED,
    RELEASE,
    ROW,
    TASK,
    WITNESS,
    public,
    signed_task,
)

HOUR = timedelta(hours=1)
OTHER = Ed25519PrivateKey.generate()
CHANGES: dict[str, Any] = {
    "plan": bytes(32),
    "layout": bytes(32),
    "release": bytes(16),
    "population": bytes(32),
    "charge": bytes(32),
    "start": TASK.start - HOUR,
    "until": TASK.until + HOUR,
    "opens": TASK.opens + HOUR,
    "closes": TASK.closes + HOUR,
    "leader": bytes(32),
    "helper": bytes(32),
    "least": 7,
    "kappa": Fraction(1, 2),
}
"""Every field but the sealing key, changed."""


def test_a_task_is_read_as_it_was_written() -> None:
    assert Task.parse(TASK.encode()) == TASK
    assert SignedTask.parse(signed_task().encode()) == signed_task()


@pytest.mark.parametrize("name", CHANGES)
def test_its_id_is_of_every_field(name: str) -> None:
    other = replace(TASK, **{name: CHANGES[name]})
    assert other.id != TASK.id
    assert Task.parse(other.encode()) == other


def body(**changes: object) -> bytes:
    return canonical({**json.loads(TASK.encode()), **changes})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 30_000,
        b"1" * (MAX_BYTES + 1),
        TASK.encode() + b" ",
        body(least=1),
        body(least=True),
        body(kappa="0"),
        body(kappa="5/4"),
        body(kappa="2/8"),
        body(kappa="1/0"),
        body(version=2),
        body(more=1),
        body(closes=json.loads(TASK.encode())["opens"]),
        body(release="00"),
        body(leader="zz" * 32),
        body(until=1e9),
        body(sealing=TASK.sealing[:-32].hex() + "00" * 32),
    ],
)
def test_bytes_that_are_no_task_are_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match="not a task"):
        Task.parse(data)


def test_both_aggregators_must_have_signed_this_task() -> None:
    for broken in (
        replace(signed_task(), leader=HELPER.sign(to_sign(TASK))),
        replace(signed_task(), helper=LEADER.sign(to_sign(TASK))),
        replace(signed_task(), task=replace(TASK, least=7)),
    ):
        with pytest.raises(BadInput, match="not both signed"):
            SignedTask.parse(broken.encode())
    for data in (b"{}", b"[]", b"[" * 9000, signed_task().encode()[:-1], signed_task().encode() + b" "):
        with pytest.raises(BadInput, match="not a signed task"):
            SignedTask.parse(data)


def test_the_witness_signs_release_plan_population_and_task() -> None:
    signature = signed_task().witness
    assert signed(signature, asked(TASK).message(), public(WITNESS))
    for name in CHANGES:
        message = asked(replace(TASK, **{name: CHANGES[name]})).message()
        assert not signed(signature, message, public(WITNESS))
    request = asked(TASK, b"proof")
    assert CollectionRequest.decode(request.encode()) == request
    with pytest.raises(BadInput, match="too short"):
        CollectionRequest.decode(request.encode()[:111])


# What a device believes.


def offered(task: SignedTask) -> tuple[Offer, bytes]:
    """Return an offer of a task in a log of seven entries, and the log's note."""
    entries = [b"%d" % each for each in range(6)] + [task.entry()]
    tree = Tree([leaf_hash(each) for each in entries])
    note = checkpoint.sign(len(entries), tree.root, LOG)
    return Offer(task, 6, tuple(tree.inclusion(6))), note


def believed(offer: Offer, note: bytes, **changes: Any) -> Task:
    asked_for = {
        "release": RELEASE,
        "row": ROW,
        "helper": public(HELPER),
        "witness": public(WITNESS),
    } | changes
    trusted = Trusted(asked_for["helper"], asked_for["witness"])
    return verify_offer(offer, PARSED, LAYOUT, asked_for["release"], asked_for["row"], note, trusted)


def test_a_logged_task_of_the_asked_release_is_believed() -> None:
    offer, note = offered(signed_task())
    assert Offer.parse(offer.encode()) == offer
    assert believed(offer, note) == TASK


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"release": bytes(16)}, "another plan, layout or release"),
        ({"row": b"another row"}, "another charge"),
        ({"helper": public(OTHER)}, "not the one that this device trusts"),
        ({"witness": public(OTHER)}, "witness has not bound"),
    ],
)
def test_a_task_for_something_else_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        believed(*offered(signed_task()), **changes)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("plan", "another plan"),
        ("layout", "another plan, layout"),
        ("least", "least batch"),
        ("kappa", "another noise"),
        ("start", "another window"),
        ("charge", "another charge"),
    ],
)
def test_a_task_that_does_not_follow_from_the_plan_is_refused(name: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        believed(*offered(signed_task(replace(TASK, **{name: CHANGES[name]}))))


def test_a_task_that_is_not_in_the_log_is_refused() -> None:
    offer, note = offered(signed_task())
    for broken in (replace(offer, index=5), replace(offer, inclusion=offer.inclusion[:-1])):
        with pytest.raises(BadInput, match="not in the log"):
            believed(broken, note)
    other, _ = offered(signed_task(replace(TASK, closes=TASK.closes + HOUR)))
    with pytest.raises(BadInput, match="not in the log"):
        believed(other, note)


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 9000, b'{"inclusion":7,"index":1,"signed":""}'])
def test_bytes_that_are_no_offer_are_refused(data: bytes) -> None:
    with pytest.raises(BadInput):
        Offer.parse(data)
    offer, _ = offered(signed_task())
    with pytest.raises(BadInput, match="not an offer"):
        Offer.parse(offer.encode() + b" ")

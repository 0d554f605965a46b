"""Checkpoints are believed with two signatures over one history, and with nothing less."""

import base64
import struct
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fa_core.errors import BadInput, Refused
from fa_core.merkle import Tree, leaf_hash
from fa_core.store.translog import prefix_roots
from fa_core.trust.checkpoint import (
    NO_CALENDAR,
    canonical,
    cosign,
    cosigned_at,
    entry,
    parse,
    plan_entry,
    sign,
    signed_by_log,
)
from tests.store.samples import LOG_KEY, NOW, WITNESS_KEY

TREE = Tree([leaf_hash(b"%d" % number) for number in range(7)])
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
LOG, WITNESS = LOG_KEY.public_key(), WITNESS_KEY.public_key()


def note(tree: Tree = TREE) -> bytes:
    signed = sign(tree.size, tree.root, LOG_KEY)
    return signed + cosign(signed, None, (), LOG, WITNESS_KEY, NOW)


def test_a_note_says_its_size_root_and_who_signed_when() -> None:
    found = parse(note())
    assert (found.size, found.root) == (7, TREE.root)
    assert signed_by_log(found, LOG)
    assert cosigned_at(found, WITNESS) == NOW


def test_a_note_has_the_form_of_public_logs() -> None:
    lines = note().decode().split("\n")
    assert lines[:4] == ["unheard", "7", base64.b64encode(TREE.root).decode(), ""]
    assert [line.split(" ")[:2] for line in lines[4:6]] == [["—", "unheard"], ["—", "unheard-witness"]]
    assert lines[6:] == [""]


def test_other_keys_did_not_sign() -> None:
    found = parse(note())
    assert not signed_by_log(found, OTHER.public_key())
    assert not signed_by_log(found, WITNESS)
    assert cosigned_at(found, OTHER.public_key()) is None
    assert cosigned_at(parse(sign(7, TREE.root, LOG_KEY)), WITNESS) is None


def test_every_changed_byte_costs_a_signature_or_the_form() -> None:
    whole = note()
    for place in range(len(whole)):
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        try:
            found = parse(changed)
        except BadInput:
            continue
        assert not (signed_by_log(found, LOG) and cosigned_at(found, WITNESS) == NOW)


@given(st.binary(max_size=200))
def test_nothing_else_parses(data: bytes) -> None:
    with pytest.raises(BadInput, match="not a checkpoint"):
        parse(data)


@pytest.mark.parametrize("size", ["-1", "07", "1_0", "٧", "9" * 5000, ""])
def test_a_size_has_one_form(size: str) -> None:
    root = base64.b64encode(TREE.root).decode()
    with pytest.raises(BadInput):
        parse(f"unheard\n{size}\n{root}\n\n".encode())


def test_a_witness_signs_extensions_only() -> None:
    grown = Tree([*TREE._levels[0], leaf_hash(b"more")])
    forked = Tree([*TREE._levels[0][:6], leaf_hash(b"x"), leaf_hash(b"y")])
    previous = parse(note())
    for tree, proof in ((grown, ()), (forked, forked.consistency(7)), (Tree(TREE._levels[0][:3]), ())):
        with pytest.raises(Refused, match="no extension of the 7"):
            cosign(sign(tree.size, tree.root, LOG_KEY), previous, proof, LOG, WITNESS_KEY, NOW)
    line = cosign(sign(8, grown.root, LOG_KEY), previous, grown.consistency(7), LOG, WITNESS_KEY, NOW)
    assert line.startswith("— unheard-witness ".encode())


def test_a_witness_signs_nothing_that_the_log_did_not() -> None:
    with pytest.raises(Refused, match="the log's own signature does not hold"):
        cosign(sign(7, TREE.root, OTHER), None, (), LOG, WITNESS_KEY, NOW)


def test_the_witness_speaks_of_whole_seconds() -> None:
    at = datetime(2026, 11, 2, 9, 0, 0, 999_999, tzinfo=UTC)
    signed = sign(7, TREE.root, LOG_KEY)
    line = cosign(signed, None, (), LOG, WITNESS_KEY, at)
    assert cosigned_at(parse(signed + line), WITNESS) == at.replace(microsecond=0)


@pytest.mark.parametrize("seconds", [NO_CALENDAR, 2**39, 2**64 - 1])
def test_a_time_beyond_every_calendar_cosigns_nothing(seconds: int) -> None:
    signed, (_, honest) = sign(7, TREE.root, LOG_KEY), parse(note()).lines[-1]
    for moment, found in ((NO_CALENDAR - 1, datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)), (seconds, None)):
        signature = WITNESS_KEY.sign(b"cosignature/v1\ntime %d\n" % moment + parse(signed).text)
        blob = base64.b64encode(honest[:4] + struct.pack(">Q", moment) + signature).decode()
        assert cosigned_at(parse(signed + f"— unheard-witness {blob}\n".encode()), WITNESS) == found


def test_entries_of_two_kinds_are_never_the_same_bytes() -> None:
    assert entry("plan", b"{}") != entry("key", b"{}")
    assert plan_entry(b'{"a":1}', bytes(32), bytes(64)) != plan_entry(b'{"a":2}', bytes(32), bytes(64))
    assert canonical({"b": 1, "a": "é"}) == b'{"a":"\\u00e9","b":1}'


@given(st.lists(st.binary(max_size=3), max_size=40))
def test_the_roots_of_all_prefixes_are_those_of_their_trees(data: list[bytes]) -> None:
    leaves = [leaf_hash(each) for each in data]
    assert prefix_roots(leaves) == [Tree(leaves[:size]).root for size in range(len(leaves) + 1)]

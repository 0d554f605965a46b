"""The bytes between relay and gateway."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fa_core.wire import bundle
from fa_core.wire.bundle import STAGES, Bundle, Unreadable

bundles = st.builds(
    Bundle,
    release=st.binary(min_size=16, max_size=16).map(bytes.hex),
    node=st.integers(0, 2**64 - 1),
    stage=st.sampled_from(STAGES),
    seconds=st.integers(0, 2**32 - 1).map(lambda milliseconds: milliseconds / 1000),
    parts=st.dictionaries(st.integers(0, 2**32 - 1), st.binary(max_size=20), max_size=5),
    everyone=st.binary(max_size=20),
)


@given(bundles)
def test_a_bundle_comes_back(sent: Bundle) -> None:
    assert bundle.decode(bundle.encode(sent)) == sent


@given(bundles, st.data())
def test_a_bundle_that_was_cut_or_grew_is_unreadable(sent: Bundle, data: st.DataObject) -> None:
    whole = bundle.encode(sent)
    with pytest.raises(Unreadable):
        bundle.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(Unreadable):
        bundle.decode(whole + b"x")


@given(st.binary(max_size=200))
def test_noise_is_unreadable_or_a_bundle(data: bytes) -> None:
    try:
        found = bundle.decode(data)
    except Unreadable:
        return
    assert bundle.decode(bundle.encode(found)) == found


def test_a_slot_that_comes_twice_is_unreadable() -> None:
    part = b"\0\0\0\7" + b"\0\0\0\1" + b"x"
    with pytest.raises(Unreadable):
        bundle.decode_parts(b"\0\0\0\0" + b"\0\0\0\2" + part + part)


def test_a_frame_that_announces_too_much_is_not_awaited() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"\xff\xff\xff\xff")
        with pytest.raises(Unreadable):
            bundle.receive(theirs)

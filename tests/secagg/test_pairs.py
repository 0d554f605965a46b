"""The keys of a pair: the same from both ends, apart from each other, and computed once in a simulation."""

import multiprocessing
from collections.abc import Sequence

import numpy as np
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from clients import simulated_pairs
from clients.simulated_pairs import SimulatedPairs
from fa_core.secagg import keys
from fa_core.secagg.identity import Record, make_record
from fa_core.secagg.pairs import PairKeys, RoundKeys, pair_keys
from tests.secagg.lab import IDENTITIES, TASK

SESSION = TASK.session


def round_keys(number: int, *, merged: bool = False) -> RoundKeys:
    """A device's keys of a round; `merged` is the broken form in which one key pair serves for both uses."""
    share = X25519PrivateKey.generate()
    mask = share if merged else X25519PrivateKey.generate()
    public = (each.public_key().public_bytes_raw() for each in (share, mask))
    return RoundKeys(make_record(IDENTITIES[number], SESSION, *public), share, mask)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """With whom this process computed keys in a simulation."""
    computed: list[Record] = []

    def counted(own: RoundKeys, others: Sequence[Record], session: bytes) -> PairKeys:
        computed.extend(others)
        return pair_keys(own, others, session)

    monkeypatch.setattr(simulated_pairs, "pair_keys", counted)
    return computed


def test_both_ends_have_the_same_three_keys() -> None:
    one, other = round_keys(0), round_keys(1)
    here, there = pair_keys(one, [other.record], SESSION), pair_keys(other, [one.record], SESSION)
    assert (here.sealing, here.opening, here.mask) == (there.opening, there.sealing, there.mask)
    assert len({*here.sealing, *here.opening, *here.mask}) == 3


@pytest.mark.parametrize("merged", [False, True])
def test_a_recovered_mask_key_opens_no_box(merged: bool) -> None:
    """The server recovers the mask key of a device that dropped: merged with the share key it opens boxes."""
    dealer, dropped = round_keys(0), round_keys(1, merged=merged)
    (sealing,) = pair_keys(dealer, [dropped.record], SESSION).sealing
    box = keys.seal(sealing, b"two shares")
    secret = keys.agree(dropped.mask, dealer.record.share_key)
    key = keys.share_key(secret, SESSION, dealer.record.device, dropped.record.device)
    if merged:
        assert keys.unseal(key, box) == b"two shares"
    else:
        with pytest.raises(InvalidTag):
            keys.unseal(key, box)


def test_the_other_end_takes_the_keys_from_another_process(computed: list[Record]) -> None:
    pairs, one, others = SimulatedPairs(4), round_keys(0), [round_keys(number) for number in (1, 2, 3)]
    records = [other.record for other in others]

    def play() -> None:
        for other in others:
            pairs(other, [one.record], SESSION)

    process = multiprocessing.get_context("fork").Process(target=play)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert pairs(one, records, SESSION) == pair_keys(one, records, SESSION)
    assert computed == []
    # They are gone from the memory with the second end.
    assert not pairs._heads.any()
    assert not pairs._entries.any()
    assert pairs(one, records[:1], SESSION) == pair_keys(one, records[:1], SESSION)
    assert computed == records[:1]


def test_keys_that_are_there_and_keys_that_are_not_stay_in_order(computed: list[Record]) -> None:
    """Of four others two have left their keys: the answer is in the order that was asked for."""
    pairs, one, *others = SimulatedPairs(5), *(round_keys(number) for number in range(5))
    records = [other.record for other in others]
    for there in (others[0], others[2]):
        pairs(there, [one.record], SESSION)
    computed.clear()
    assert pairs(one, records, SESSION) == pair_keys(one, records, SESSION)
    assert computed == [records[1], records[3]]


@pytest.mark.parametrize("torn", [0, 4, 8, 15, 16])
def test_a_torn_entry_is_computed_again(torn: int, computed: list[Record]) -> None:
    """A word of the name, of a key or of the checksum is not what was written."""
    pairs, one, other = SimulatedPairs(2), round_keys(0), round_keys(1)
    pairs(one, [other.record], SESSION)
    (place,), (way,) = pairs._heads.nonzero()
    pairs._entries[place, way, torn] ^= np.uint64(1 << 40)
    assert pairs(other, [one.record], SESSION) == pair_keys(other, [one.record], SESSION)
    assert computed == [other.record, one.record]


def test_pairs_that_displace_each_other_are_computed_again(computed: list[Record]) -> None:
    """66 pairs want 64 places, and all first ends come before all second ones."""
    pairs, cohort = SimulatedPairs(1), [round_keys(number) for number in range(12)]
    records = [each.record for each in cohort]
    for number, own in enumerate(cohort):
        later = records[number + 1 :]
        assert pairs(own, later, SESSION) == pair_keys(own, later, SESSION)
    for number, own in enumerate(cohort):
        earlier = records[:number]
        assert pairs(own, earlier, SESSION) == pair_keys(own, earlier, SESSION)
    assert 66 + 2 <= len(computed) < 132

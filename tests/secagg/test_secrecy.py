"""Two fleets with the same sum look alike to the server, whatever it tries; every broken variant is caught.

An attack identifies a fleet if some vector that it opens belongs to that fleet and not to the other. Each
runs against the real party and against the broken variant that it was made for: it must succeed there, or
it proves nothing.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fa_core.errors import Refused
from fa_core.secagg import DeviceParty, Parameters, Refusal, Stage, keys, messages
from fa_core.secagg.identity import make_record
from fa_core.secagg.masks import Masker, lift
from fa_core.secagg.pairs import RoundKeys
from tests.secagg import attacks, lab
from tests.secagg.attacks import Opened, View
from tests.secagg.lab import TASK, Lab, Vectors

LENGTH = 64
LAB_TASK = replace(TASK, length=LENGTH)


def fleets(n: int) -> tuple[Vectors, Vectors]:
    """Two fleets with equal sums; the first four entries are zero in both, as an attacker may well know."""
    one = np.random.default_rng(7).integers(0, 50, size=(n, LENGTH))
    one[:, :4] = 0
    two = one.copy()
    two[0], two[1] = one[1] + 3, one[0] - 3
    two[:, :4] = 0
    assert np.array_equal(one.sum(axis=0), two.sum(axis=0))
    return one, two


def identify(opened: Opened, one: Vectors, two: Vectors) -> str | None:
    """Which fleet it was, if anything that was opened is a vector of one of them."""
    for index, vector in opened.items():
        if np.array_equal(vector, one[index]) and not np.array_equal(vector, two[index]):
            return "one"
        if np.array_equal(vector, two[index]) and not np.array_equal(vector, one[index]):
            return "two"
    return None


def verdicts(
    journal: Path,
    party: type[DeviceParty],
    n: int,
    attack: Callable[[Lab], Opened],
    task: lab.Task = LAB_TASK,
) -> tuple[str | None, str | None]:
    """The fleet that the attack identifies in a round with the first, and in one with the second."""
    one, two = fleets(n)
    first = attack(lab.make(journal / "one", n, task, one, party=party))
    second = attack(lab.make(journal / "two", n, task, two, party=party))
    return identify(first, one, two), identify(second, one, two)


CAUGHT = ("one", "two")
BLIND = (None, None)


# --- a device is declared dropped although its vector came: only its self mask is left on it -------------


class NoSelfMask(DeviceParty):
    """Leaves the self mask out."""

    __slots__ = ()

    def _masked(self, request: bytes) -> bytes:
        assert self._cohort is not None
        assert self._keys is not None
        reply = super()._masked(request)
        vector = messages.read_masked_reply(self._task, reply).copy()
        key = keys.self_mask_key(self._cohort.seed, self._task.session, self._keys.record.device)
        Masker(vector).apply(key, subtract=True)
        return messages.masked_reply(self._task.session, vector)


def late_vector(bench: Lab) -> Opened:
    """Declare device 0 dropped after its vector came, and recover its mask key."""
    view = attacks.record(bench, late={0})
    attacks.unmask_honestly(view, bench)
    assert view.secret("key", 0) is not None
    return attacks.open_keys(view)


def test_a_vector_that_comes_late_stays_under_its_self_mask(tmp_path: Path) -> None:
    assert verdicts(tmp_path, DeviceParty, 10, late_vector) == BLIND


def test_without_a_self_mask_it_is_read(tmp_path: Path) -> None:
    assert verdicts(tmp_path, NoSelfMask, 10, late_vector) == CAUGHT


# --- both shares of one peer -----------------------------------------------------------------------------


class Talkative(DeviceParty):
    """Answers `unmask` again, for another bitmap."""

    __slots__ = ()

    def unmask(self, request: bytes) -> bytes:
        kept = (self._keys, self._cohort, self._received, dict(self._answers))
        reply = super().unmask(request)
        self._keys, self._cohort, self._received, self._answers = kept
        return reply


def two_stories(bench: Lab) -> Opened:
    """Ask everybody twice: once device 0 lived, once it died. The witness colludes and signs both."""
    view = attacks.record(bench)
    everybody = np.ones(len(bench.parties), dtype=np.bool_)
    without = everybody.copy()
    without[0] = False
    for holder in range(1, len(bench.parties)):
        attacks.ask(view, bench, holder, everybody)
        with suppress(Refusal):
            attacks.ask(view, bench, holder, without)
    return attacks.open_keys(view)


def test_no_device_hands_out_both_shares_of_a_peer(tmp_path: Path) -> None:
    assert verdicts(tmp_path, DeviceParty, 10, two_stories) == BLIND


def test_a_device_that_hands_out_both_reveals_the_vector(tmp_path: Path) -> None:
    assert verdicts(tmp_path, Talkative, 10, two_stories) == CAUGHT


# --- half of the neighbours are sent "dropped", half "alive" -----------------------------------------------


class Credulous(DeviceParty):
    """Believes any bitmap: no witness, no quorum."""

    __slots__ = ()

    def _unmask(self, request: bytes) -> bytes:
        assert self._cohort is not None
        devices = self._cohort.parameters.devices
        survivors, _ = messages.read_unmask_request(self._task.session, request, devices)
        assert self._received is not None
        shares = np.full((self._cohort.parameters.neighbours, 9), 0xFFFFFFFF, dtype=np.uint32)
        for slot, pair in enumerate(self._received.shares):
            shares[slot] = pair[0 if survivors[self._cohort.neighbours[slot]] else 1]
        return messages.unmask_reply(self._task.session, shares)


def half_and_half(bench: Lab) -> Opened:
    """Send every device another bitmap: of its neighbours the even ones are alive, or the odd ones are."""
    view = attacks.record(bench)
    n = len(bench.parties)
    for holder in range(n):
        alive = (np.arange(n) + holder) % 2 == 0
        alive[holder] = True
        with suppress(Refusal):
            attacks.ask(view, bench, holder, alive)
    return attacks.open_keys(view)


def low_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    """SecAgg+ as often deployed: a threshold under half of the neighbours."""
    weak = lambda n, f, gamma: Parameters(n, n - 1, (n - 1) // 2 - 1, n - int(f * n))  # noqa: E731
    monkeypatch.setattr("fa_core.secagg.device.choose", weak)
    monkeypatch.setattr("fa_core.secagg.server.choose", weak)


def test_half_and_half_reads_every_vector_of_the_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    low_threshold(monkeypatch)
    assert verdicts(tmp_path, Credulous, 12, half_and_half) == CAUGHT
    one, _ = fleets(12)
    opened = half_and_half(lab.make(tmp_path / "all", 12, LAB_TASK, one, party=Credulous))
    assert len(opened) == 12
    assert all(np.array_equal(opened[i], one[i]) for i in range(12))


def test_half_and_half_reads_nothing_of_ours(tmp_path: Path) -> None:
    assert verdicts(tmp_path, DeviceParty, 12, half_and_half) == BLIND


def test_a_threshold_over_half_stops_it_even_where_everybody_is_credulous(tmp_path: Path) -> None:
    """The witness and every check gone, t > k/2 + c alone keeps the vectors."""
    assert verdicts(tmp_path, Credulous, 12, half_and_half) == BLIND


def test_the_witness_signs_no_second_bitmap(tmp_path: Path) -> None:
    bench = lab.make(tmp_path, 10).run({Stage.MASKED: {3}}, until=Stage.UNMASK)
    alive = np.ones(10, dtype=np.bool_)
    alive[4] = False
    with pytest.raises(Refused, match="signed another survivors"):
        bench.witness.sign_survivors(messages.survivors_request(TASK, np.ones(10, dtype=np.bool_), alive))


# --- mask seeds of 32 bits -------------------------------------------------------------------------------

THREE = replace(LAB_TASK, dropout=Fraction(0), corrupt=Fraction(0))


def cut_to(bits: int) -> type[DeviceParty]:
    """The variant whose pair masks come from a seed of so many bits."""

    class ShortSeed(DeviceParty):
        __slots__ = ()

        def _masked(self, request: bytes) -> bytes:
            assert self._cohort is not None
            assert self._keys is not None
            cohort, contribute = self._cohort, self._contribute
            assert contribute
            vector = lift(contribute(3), 32)
            seed = keys.self_mask_key(cohort.seed, self._task.session, self._keys.record.device)
            Masker(vector).apply(seed)
            for key, adds in zip(cohort.mask_keys, cohort.adds, strict=True):
                stream = attacks.weak_stream(attacks.cut(key, bits), vector.nbytes)
                mask = np.frombuffer(stream, dtype="<u4")
                vector += mask if adds else np.uint32(0) - mask
            return messages.masked_reply(self._task.session, vector)

    return ShortSeed


def try_all_seeds(bits: int) -> Callable[[Lab], Opened]:
    def attack(bench: Lab) -> Opened:
        view: View = attacks.record(bench, corrupt={2})
        everybody = np.ones(3, dtype=np.bool_)
        view.corrupt[2] = _before_unmask(bench.parties[2])
        for holder in range(3):
            attacks.ask(view, bench, holder, everybody)
        return attacks.search_seeds(view, bits, np.zeros(4, dtype=np.int64))

    return attack


def _before_unmask(party: DeviceParty) -> DeviceParty:
    """A copy of what a corrupt device remembers, since the party itself forgets its keys."""
    copy = DeviceParty(party._task, party._identity, party._trust, lambda n: np.zeros(n, dtype=np.int64))
    copy._cohort = party._cohort
    return copy


def test_a_short_mask_seed_is_found_by_trying_them_all(tmp_path: Path) -> None:
    assert verdicts(tmp_path, cut_to(22), 3, try_all_seeds(22), THREE) == CAUGHT


@pytest.mark.long
def test_a_mask_seed_of_32_bits_is_found_by_trying_them_all(tmp_path: Path) -> None:
    assert verdicts(tmp_path, cut_to(32), 3, try_all_seeds(32), THREE) == CAUGHT


def test_trying_them_all_finds_nothing_in_ours(tmp_path: Path) -> None:
    assert verdicts(tmp_path, DeviceParty, 3, try_all_seeds(22), THREE) == BLIND


# --- the same keys in two rounds -------------------------------------------------------------------------


class SameKeys(DeviceParty):
    """Keeps its round keys for ever; `bound` says whether its masks are bound to the session all the same."""

    __slots__ = ()
    kept: dict[bytes, tuple[X25519PrivateKey, X25519PrivateKey]] = {}  # noqa: RUF012
    bound = True

    def _join(self, request: bytes) -> bytes:
        super()._join(request)
        fresh = (X25519PrivateKey.generate(), X25519PrivateKey.generate())
        share, mask = self.kept.setdefault(self._identity.device, fresh)
        public = (share.public_key().public_bytes_raw(), mask.public_key().public_bytes_raw())
        record = make_record(self._identity, self._task.session, *public)
        self._keys = RoundKeys(record, share, mask)
        return messages.join_reply(self._task.session, record.encode())

    def _shares(self, request: bytes) -> bytes:
        reply = super()._shares(request)
        if not self.bound:
            assert self._keys is not None
            assert self._cohort is not None
            own, mask = self._keys.record.device, self._keys.mask
            masks = tuple(
                keys.pair_mask_key(keys.agree(mask, peer.mask_key), bytes(32), own, peer.device)
                for peer in self._cohort.records
            )
            self._cohort = replace(self._cohort, mask_keys=masks)
        return reply


class Unbound(SameKeys):
    """Nor are its masks."""

    __slots__ = ()
    bound = False


def two_rounds(journal: Path, party: type[DeviceParty]) -> tuple[str | None, str | None]:
    """A round of zeros, then one of the fleet: the difference of a device's two vectors is its counts."""
    one, two = fleets(10)

    def difference(fleet: Vectors, name: str) -> Opened:
        bare = []
        for attempt, rows in enumerate((np.zeros_like(fleet), fleet)):
            task = replace(LAB_TASK, attempt=attempt)
            bench = lab.make(journal / name / str(attempt), 10, task, rows, party=party)
            view = attacks.record(bench)
            attacks.unmask_honestly(view, bench)
            bare.append([view.bare(i) for i in range(10)])
        return {i: attacks.lower(bare[1][i] - bare[0][i]) for i in range(10)}

    return identify(difference(one, "one"), one, two), identify(difference(two, "two"), one, two)


def test_masks_used_twice_cancel(tmp_path: Path) -> None:
    assert two_rounds(tmp_path, Unbound) == CAUGHT


@pytest.mark.parametrize("party", [DeviceParty, SameKeys])
def test_ours_never_come_twice_even_from_the_same_keys(tmp_path: Path, party: type[DeviceParty]) -> None:
    assert two_rounds(tmp_path, party) == BLIND


# --- what the bytes look like ----------------------------------------------------------------------------


def uneven(data: bytes) -> float:
    """Chi-square of the bytes against the uniform distribution, 255 degrees of freedom."""
    counts = np.bincount(np.frombuffer(data, dtype=np.uint8), minlength=256)
    expected = len(data) / 256
    return float(((counts - expected) ** 2 / expected).sum())


LIMIT = 450.0  # exceeded by chance with probability 2e-13, and under 1e-9 of bytes as few as here


class NoPairMasks(DeviceParty):
    """Hides nothing from a server that opens its self mask."""

    __slots__ = ()

    def _shares(self, request: bytes) -> bytes:
        reply = super()._shares(request)
        assert self._cohort is not None
        count = len(self._cohort.mask_keys)
        self._cohort = replace(self._cohort, mask_keys=(bytes(32),) * count, adds=(True, False) * 5)
        return reply


@pytest.mark.parametrize("party, even", [(DeviceParty, True), (NoPairMasks, False)])
def test_what_is_left_when_self_masks_are_open_is_even_noise(
    tmp_path: Path, party: type[DeviceParty], even: bool
) -> None:
    for name, rows in zip(("one", "two"), fleets(11), strict=True):
        bench = lab.make(tmp_path / name, 11, replace(LAB_TASK, corrupt=Fraction(0)), rows, party=party)
        view = attacks.record(bench)
        attacks.unmask_honestly(view, bench)
        left = b"".join(view.bare(i).tobytes() for i in range(11))
        assert (uneven(left) < LIMIT) is even


def test_the_sum_is_all_that_two_fleets_share(tmp_path: Path) -> None:
    one, two = fleets(10)
    totals = [
        lab.make(tmp_path / name, 10, LAB_TASK, rows).run().server.result.total
        for name, rows in (("one", one), ("two", two))
    ]
    assert np.array_equal(totals[0], totals[1])

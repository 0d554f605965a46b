"""What a dishonest server can try with everything that it received, and its colluding devices with it.

Each attack takes a `View` and returns the vectors that it got out, by roster index. Against the real parties
none may be a device's; against each broken variant the attack that it invites must succeed.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray

from fa_core.secagg import DeviceParty, Stage, Task, keys, messages, shamir
from fa_core.secagg.device import commitment_to
from fa_core.secagg.graph import mirror
from fa_core.secagg.identity import Record
from fa_core.secagg.masks import Masker, lower
from tests.secagg.lab import Lab, sign_survivors

Opened = dict[int, NDArray[np.int64]]
FIXED_KEY = bytes(range(32))


@dataclass
class View:
    """Everything that reached the server in one round; lists and keys are by roster index."""

    task: Task
    records: list[Record]
    neighbours: NDArray[np.int64]
    threshold: int
    commitments: dict[int, bytes]
    vectors: dict[int, bytes]
    points: dict[str, NDArray[np.uint32]]
    corrupt: dict[int, DeviceParty] = field(default_factory=dict)

    def secret(self, which: str, index: int) -> bytes | None:
        """A device's seed b ("seed") or mask key ("key"), if enough shares of it came in."""
        points = self.points[which][index]
        if (points[:, 0] != shamir.MISSING).sum() < self.threshold:
            return None
        (found,) = shamir.recover(points[None])
        if found is None:
            return None
        if which == "seed":
            right = commitment_to(found, self.task.release, self.records[index].device)
            return found if right == self.commitments[index] else None
        public = X25519PrivateKey.from_private_bytes(found).public_key().public_bytes_raw()
        return found if public == self.records[index].mask_key else None

    def bare(self, index: int) -> NDArray[np.uint32]:
        """The masked vector of a device, less its self mask where that is open."""
        vector = np.frombuffer(self.vectors[index], dtype="<u4").copy()
        seed = self.secret("seed", index)
        if seed is not None:
            key = keys.self_mask_key(seed, self.task.session, self.records[index].device)
            Masker(vector).apply(key, subtract=True)
        return vector


def record(bench: Lab, corrupt: Collection[int] = (), late: Collection[int] = ()) -> View:
    """Run a round up to its last stage, whose requests are not sent yet, and have the whole transcript.

    `late`: nodes that are reported as dropped although their masked vector came.
    """
    vectors: dict[int, bytes] = {}

    def note(stage: Stage, node: int, reply: bytes) -> bytes | None:
        if stage is Stage.MASKED:
            vectors[node] = reply[36:]
            return None if node in late else reply
        return reply

    bench.run(reply=note, until=Stage.UNMASK)
    return of_server(bench, vectors, corrupt)


def of_server(bench: Lab, vectors: dict[int, bytes], corrupt: Collection[int] = ()) -> View:
    """The view of a server that waits to send its last requests."""
    server = bench.server
    blank = np.full((*server._neighbours.shape, shamir.LIMBS), shamir.MISSING, dtype=np.uint32)
    return View(
        task=bench.task,
        records=server._records,
        neighbours=server._neighbours,
        threshold=server._parameters.threshold,
        commitments=server._commitments,
        vectors=vectors,
        points={"seed": blank.copy(), "key": blank.copy()},
        corrupt={i: bench.parties[i] for i in corrupt},
    )


def take(view: View, holder: int, reply: bytes, alive: messages.Flags) -> None:
    """File the shares that a device handed out, believing that `alive` survived."""
    k = view.neighbours.shape[1]
    shares = messages.read_unmask_reply(view.task.session, reply, k)
    for slot, owner in enumerate(view.neighbours[holder].tolist()):
        which = "seed" if alive[owner] else "key"
        view.points[which][owner, mirror(k)[slot]] = shares[slot]


def ask(view: View, bench: Lab, holder: int, alive: messages.Flags) -> None:
    """Ask one device to unmask for a bitmap, signed by a witness that colludes. Refusal goes through."""
    roster, dealt = bench.server._roster, bench.server._dealt
    request = sign_survivors(bench.witness_key, view.task, roster, alive, dealt)
    take(view, holder, bench.parties[holder].unmask(request), alive)


def unmask_honestly(view: View, bench: Lab) -> None:
    """The last stage as it should be: the real bitmap, to all who survived."""
    for i in np.flatnonzero(bench.server._survivors).tolist():
        reply = bench.parties[i].unmask(bench.server.requests()[i])
        take(view, i, reply, bench.server._survivors)


def without_pair_masks(view: View, index: int, private: bytes) -> NDArray[np.uint32]:
    """What is left of a device's vector when its mask key is known."""
    vector, own = view.bare(index), view.records[index].device
    masker = Masker(vector)
    for other in view.neighbours[index].tolist():
        peer = view.records[other]
        secret = keys.agree(X25519PrivateKey.from_private_bytes(private), peer.mask_key)
        masker.apply(
            keys.pair_mask_key(secret, view.task.session, own, peer.device), subtract=own < peer.device
        )
    return vector


def open_keys(view: View) -> Opened:
    """Take the pairwise masks off every device whose mask key can be recovered; the self mask too, if it can.

    Against the real parties one of the two is always missing, and what is left is noise.
    """
    found = {}
    for index in view.vectors:
        private = view.secret("key", index)
        if private is not None:
            found[index] = lower(without_pair_masks(view, index, private))
    return found


def weak_stream(seed: int, size: int) -> bytes:
    """The generator of the broken variant: AES under a public key, of a counter that starts at the seed."""
    blocks = np.zeros((-(-size // 16), 4), dtype="<u4")
    blocks[:, 0], blocks[:, 1] = seed, np.arange(len(blocks))
    return Cipher(AES256(FIXED_KEY), ECB()).encryptor().update(blocks.tobytes())[:size]


def search_seeds(view: View, bits: int, known: NDArray[np.int64]) -> Opened:
    """Three devices, one of them corrupt: one mask is left on each of the others. Try every seed of `bits`.

    `known`: the first four entries of the vector, which the attacker knows (cells that are always zero, say).
    """
    (traitor,) = view.corrupt
    found = {}
    for index in set(view.vectors) - {traitor}:
        other = ({0, 1, 2} - {traitor, index}).pop()
        vector = np.frombuffer(view.bare(index).tobytes(), dtype="<u4").copy()
        mask = np.frombuffer(weak_pair(view.corrupt[traitor], view, traitor, index, bits, len(vector)), "<u4")
        first = view.records[index].device
        vector += np.uint32(0) - mask if first < view.records[traitor].device else mask
        target = vector[:4] - known.astype("<u4")
        if not first < view.records[other].device:
            target = np.uint32(0) - target
        seed = find_seed(target, bits)
        if seed is not None:
            mask = np.frombuffer(weak_stream(seed, vector.nbytes), dtype="<u4")
            vector += np.uint32(0) - mask if first < view.records[other].device else mask
            found[index] = lower(vector)
    return found


def weak_pair(party: DeviceParty, view: View, own: int, peer: int, bits: int, length: int) -> bytes:
    """The mask between a corrupt device and a peer, as the broken variant makes it."""
    cohort = party._cohort
    assert cohort
    slot = view.neighbours[own].tolist().index(peer)
    return weak_stream(cut(cohort.mask_keys[slot], bits), 4 * length)


def cut(key: bytes, bits: int) -> int:
    """The low bits of a key."""
    return int.from_bytes(key[:4], "little") & ((1 << bits) - 1)


def find_seed(target: NDArray[np.uint32], bits: int) -> int | None:
    """The seed whose stream starts with these four words, by trying all 2^bits of them."""
    encryptor = Cipher(AES256(FIXED_KEY), ECB()).encryptor()
    step = 1 << min(bits, 18)
    blocks = np.zeros((step, 4), dtype="<u4")
    out = bytearray(blocks.nbytes + 15)
    words = np.frombuffer(out, dtype="<u4", count=4 * step).reshape(step, 4)
    for start in range(0, 1 << bits, step):
        blocks[:, 0] = np.arange(start, start + step, dtype=np.uint64)
        encryptor.update_into(memoryview(blocks).cast("B"), out)
        for hit in np.flatnonzero(words[:, 0] == target[0]).tolist():
            if np.array_equal(words[hit], target):
                return start + hit
    return None

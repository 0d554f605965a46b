"""Merkle trees and their proofs, as RFC 6962 defines them: how a short hash stands for a long list.

Two rooms need the same thing: the transparency log (this plan is in the list that everybody sees) and the
roster of a round (this key is one of the n that the witness signed). Leaves and inner nodes are hashed under
different prefixes, so that an inner node can never be passed off as a leaf (RFC 6962, section 2.1).

Pure: bytes in, bytes out. A proof is a tuple of 32-byte hashes; verifiers answer True or False and raise
nothing, whatever they are given.

    >>> tree = Tree([leaf_hash(b"a"), leaf_hash(b"b"), leaf_hash(b"c")])
    >>> proof = tree.inclusion(2)
    >>> verify_inclusion(leaf_hash(b"c"), 2, 3, proof, tree.root)
    True
"""

from collections.abc import Sequence
from hashlib import sha256

HASH_SIZE = 32
Proof = tuple[bytes, ...]


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data): the hash of one entry."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right): the hash of two subtrees."""
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """The tree over a fixed list of leaf hashes. Building costs one hash a leaf; a proof costs no hashing.

    `_levels[0]` are the leaves and each further level the hashes of pairs below; a node without a partner
    goes up unchanged, which yields exactly the tree that RFC 6962 defines by splitting at powers of two.
    """

    def __init__(self, hashes: Sequence[bytes]) -> None:
        level = list(hashes)
        self._levels = [level]
        while len(level) > 1:
            above = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
            level = above + level[len(level) & ~1 :]
            self._levels.append(level)

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0])

    @property
    def root(self) -> bytes:
        """The hash of the whole list; SHA-256 of nothing for the empty one."""
        return self._levels[-1][0] if self.size else sha256(b"").digest()

    def inclusion(self, index: int) -> Proof:
        """Proof that the leaf at `index` is in the tree, from the leaf upwards. IndexError outside it."""
        if not 0 <= index < self.size:
            raise IndexError(f"leaf {index} is not in a tree of {self.size}")
        path = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                path.append(level[sibling])
            index >>= 1
        return tuple(path)

    def consistency(self, old_size: int) -> Proof:
        """Proof that the tree of the first `old_size` leaves is a prefix of this one. IndexError outside."""
        if not 0 <= old_size <= self.size:
            raise IndexError(f"{old_size} leaves are not a prefix of a tree of {self.size}")
        if old_size in (0, self.size):
            return ()
        return self._subproof(old_size, 0, self.size, whole=True)

    def _subproof(self, old: int, low: int, high: int, *, whole: bool) -> Proof:
        """SUBPROOF of RFC 6962, section 2.1.2, on the leaves [low, high)."""
        if old == high - low:
            return () if whole else (self._subtree(low, high),)
        split = _split(high - low)
        if old <= split:
            left = self._subproof(old, low, low + split, whole=whole)
            return (*left, self._subtree(low + split, high))
        right = self._subproof(old - split, low + split, high, whole=False)
        return (*right, self._subtree(low, low + split))

    def _subtree(self, low: int, high: int) -> bytes:
        """Hash of the leaves [low, high): a full subtree, the right edge, or the end of a prefix."""
        height = (high - low - 1).bit_length()
        if high - low == 1 << height or high == self.size:
            return self._levels[height][low >> height]
        split = _split(high - low)
        return node_hash(self._subtree(low, low + split), self._subtree(low + split, high))


def root(hashes: Sequence[bytes]) -> bytes:
    """The root over a list of leaf hashes."""
    return Tree(hashes).root


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the leaf hash `leaf` is at `index` of `size` leaves under `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    position, last, current = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            current = node_hash(sibling, current)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            current = node_hash(current, sibling)
        position >>= 1
        last >>= 1
    return last == 0 and current == root


def verify_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether the tree under `old_root` is a prefix of the tree under `new_root` (RFC 9162, 2.1.4.2)."""
    if not 0 <= old_size <= new_size:
        return False
    if old_size == 0:
        return not proof and old_root == sha256(b"").digest()
    if old_size == new_size:
        return not proof and old_root == new_root
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    position, last = old_size - 1, new_size - 1
    while position & 1:
        position >>= 1
        last >>= 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        position >>= 1
        last >>= 1
    return last == 0 and old == old_root and new == new_root


def _split(size: int) -> int:
    """The largest power of two that is less than `size` (which is at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)

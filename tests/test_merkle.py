"""The tree agrees with RFC 6962's recursive definition and known vectors; no forged proof is accepted."""

from hashlib import sha256

import pytest

from fa_core import merkle

# The eight entries of certificate-transparency's reference tests, and the roots of their first 1..8.
ENTRIES = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    bytes(range(0x40, 0x44)),
    bytes(range(0x50, 0x58)),
    bytes(range(0x60, 0x70)),
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def slow_root(hashes: list[bytes]) -> bytes:
    """MTH exactly as RFC 6962 section 2.1 words it."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return sha256(b"\x01" + slow_root(hashes[:k]) + slow_root(hashes[k:])).digest()


def leaves(n: int) -> list[bytes]:
    return [merkle.leaf_hash(b"%d" % i) for i in range(n)]


def test_published_roots() -> None:
    hashes = [merkle.leaf_hash(e) for e in ENTRIES]
    assert [merkle.root(hashes[: i + 1]).hex() for i in range(8)] == ROOTS
    assert merkle.root([]) == sha256(b"").digest()


@pytest.mark.parametrize("n", range(1, 34))
def test_every_inclusion_and_consistency_proof(n: int) -> None:
    hashes = leaves(n)
    tree = merkle.Tree(hashes)
    assert tree.root == slow_root(hashes)
    for i in range(n):
        proof = tree.inclusion(i)
        assert merkle.verify_inclusion(hashes[i], i, n, proof, tree.root)
        assert not merkle.verify_inclusion(hashes[i], i + 1, n, proof, tree.root)
        assert not merkle.verify_inclusion(hashes[(i + 1) % n], i, n, proof, tree.root) or n == 1
        assert not merkle.verify_inclusion(hashes[i], i, n, (*proof, hashes[0]), tree.root)
        assert not proof or not merkle.verify_inclusion(hashes[i], i, n, proof[:-1], tree.root)
    for m in range(n + 1):
        old = merkle.root(hashes[:m])
        proof = tree.consistency(m)
        assert merkle.verify_consistency(m, n, old, tree.root, proof)
        assert not merkle.verify_consistency(m, n, old, tree.root, (*proof, hashes[0]))
        if 0 < m < n:
            assert not merkle.verify_consistency(m, n, bytes(32), tree.root, proof)
            assert not merkle.verify_consistency(m, n, old, bytes(32), proof)
            assert not merkle.verify_consistency(m, n, old, tree.root, proof[:-1])


def test_a_rewritten_history_has_no_proof() -> None:
    hashes = leaves(13)
    rewritten = merkle.Tree([merkle.leaf_hash(b"other"), *hashes[1:]])
    assert not merkle.verify_consistency(
        7, 13, merkle.root(hashes[:7]), rewritten.root, rewritten.consistency(7)
    )


def test_outside_the_tree() -> None:
    tree = merkle.Tree(leaves(3))
    for bad in (-1, 3):
        with pytest.raises(IndexError):
            tree.inclusion(bad)
    for bad in (-1, 4):
        with pytest.raises(IndexError):
            tree.consistency(bad)
    assert not merkle.verify_inclusion(bytes(32), 0, 0, (), bytes(32))
    assert not merkle.verify_consistency(4, 3, bytes(32), bytes(32), ())

"""The published vectors are what the package makes, and what a second, plain implementation makes too."""

import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fa_core.secagg import keys
from tests.secagg import make_vectors, reference
from tests.secagg.make_vectors import FOLDER, TASKS


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return content


def test_the_package_makes_the_published_files() -> None:
    made = make_vectors.files()
    assert set(made) == {path.name for path in FOLDER.glob("secagg-*.json")}
    for name, text in made.items():
        assert (FOLDER / name).read_text() == text, f"{name} is not what the code makes"


@pytest.fixture(params=list(TASKS))
def vector(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def test_the_task_and_its_session(vector: dict[str, Any]) -> None:
    assert reference.task_bytes(vector["task"]).hex() == vector["task_bytes"]
    assert reference.session_of(vector["task"]).hex() == vector["session"]


def test_keys_and_records(vector: dict[str, Any]) -> None:
    authority = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["authority_private"]))
    session = bytes.fromhex(vector["session"])
    for device in vector["devices"]:
        identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(device["identity_private"]))
        name = identity.public_key().public_bytes_raw()
        assert name.hex() == device["device"]
        public = reference.x25519_public(bytes.fromhex(device["mask_private"]))
        assert public.hex() == device["mask_public"]
        share = reference.x25519_public(bytes.fromhex(device["share_private"]))
        assert share.hex() == device["share_public"]
        population = bytes.fromhex(vector["task"]["population"])
        certificate = population + authority.sign(reference.label("device certificate") + population + name)
        signature = identity.sign(reference.label("round keys") + session + share + public)
        assert (name + certificate + share + public + signature).hex() == device["record"]


def test_roster_ring_and_neighbours(vector: dict[str, Any]) -> None:
    roster = vector["roster"]
    root = reference.merkle_root([bytes.fromhex(d["record"]) for d in vector["devices"]])
    assert root.hex() == roster["root"]
    message = reference.roster_message(
        vector["task"], root, bytes.fromhex(roster["nonce"]), len(vector["devices"])
    )
    witness = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["witness_private"]))
    assert witness.sign(message).hex() == roster["signature"]
    assert reference.sha(message).hex() == roster["hash"]
    ring = reference.order(bytes.fromhex(roster["hash"]), len(vector["devices"]))
    assert ring == roster["ring"]
    for i, device in enumerate(vector["devices"]):
        assert reference.slots(i, ring, vector["parameters"]["neighbours"]) == device["neighbours"]


def test_the_dealt_shares_make_the_secrets(vector: dict[str, Any]) -> None:
    t = vector["parameters"]["threshold"]
    for device in vector["devices"]:
        rows = list(enumerate(device["shares"], start=1))[-t:]
        assert reference.combine({x: row[:9] for x, row in rows}).hex() == device["seed"]
        assert reference.combine({x: row[9:] for x, row in rows}).hex() == device["mask_private"]


def test_masked_vectors(vector: dict[str, Any]) -> None:
    for i, device in enumerate(vector["devices"]):
        if "masked" in device["replies"]:
            assert reference.masked_vector(vector, i).hex() == device["replies"]["masked"][72:]


def test_commitments_and_the_bitmap(vector: dict[str, Any]) -> None:
    roster_hash = bytes.fromhex(vector["roster"]["hash"])
    for device in vector["devices"]:
        body = bytes.fromhex(device["replies"]["shares"])[36:]
        named = bytes.fromhex(vector["task"]["release"]) + bytes.fromhex(device["device"])
        commitment = reference.sha(bytes.fromhex(device["seed"]) + named)
        identity = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(device["identity_private"]))
        message = reference.label("dealt") + roster_hash + commitment + reference.sha(body[96:])
        assert body[:96] == commitment + identity.sign(message)
    witness = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["witness_private"]))
    survivors = bytes([sum(1 << i for i, d in enumerate(vector["devices"]) if "masked" in d["replies"])])
    dealt = bytes([2 ** len(vector["devices"]) - 1])
    body = bytes.fromhex(vector["devices"][0]["requests"]["unmask"])[36:]
    message = reference.label("survivors") + roster_hash + dealt + survivors
    assert body == survivors + witness.sign(message)


def test_the_reference_opens_the_same_sum(vector: dict[str, Any]) -> None:
    counted = [d["contribution"] for d in vector["devices"] if "masked" in d["replies"]]
    assert len(counted) == len(vector["devices"]) - (vector["task"]["bits"] == 32)
    assert reference.unmask(vector) == vector["sum"] == [sum(column) for column in zip(*counted, strict=True)]


def test_a_complaint() -> None:
    """A whole complaint, judged from its bytes by the reference."""
    vector = read("secagg-complaint")
    body = bytes.fromhex(vector["complaint"])[36 + 141 :]
    named = []
    for who in ("accuser", "accused"):
        assert body[4:260].hex() == vector[who]
        named.append((int.from_bytes(body[:4], "little"), body[4:260]))
        body = body[261 + 32 * body[260] :]
    (_, one), (_, other) = named
    opening, commitment, signature, sealed = body[:96], body[96:128], body[128:192], body[192:]
    roster_hash, session = bytes.fromhex(vector["roster_hash"]), bytes.fromhex(vector["session"])
    message = reference.label("dealt") + roster_hash + commitment + reference.sha(sealed)
    Ed25519PublicKey.from_public_bytes(other[:32]).verify(signature, message)
    own, peer = one[128:160], other[128:160]
    secret = reference.opened(own, peer, roster_hash, opening)
    assert secret is not None
    assert secret.hex() == vector["secret"]
    private = bytes.fromhex(vector["accuser_share_private"])
    assert secret == reference.x25519(private, peer)
    assert reference.x25519_public(private) == own
    slot = vector["accused_neighbours"].index(0)
    key = reference.hkdf(secret, reference.label("share") + session + other[:32] + one[:32])
    with pytest.raises(InvalidTag):
        AESGCM(key).decrypt(bytes(12), sealed[88 * slot : 88 * slot + 88], None)
    assert other[:32].hex() == vector["liar"]


def test_primitives() -> None:
    parts = read("secagg-primitives")
    agreed = parts["agreement"]
    found = reference.x25519(bytes.fromhex(agreed["private"]), bytes.fromhex(agreed["public"]))
    assert found.hex() == agreed["secret"]
    derived = {key: bytes.fromhex(value) for key, value in parts["derived"].items()}
    both = derived["session"] + min(derived["one"], derived["other"]) + max(derived["one"], derived["other"])
    assert reference.hkdf(derived["secret"], reference.label("pair mask") + both) == derived["pair_mask_key"]
    stream = b"".join(reference.block(bytes.fromhex(parts["mask"]["key"]), i) for i in range(5))
    assert stream.hex() == parts["mask"]["stream"]
    sealed = {key: bytes.fromhex(value) for key, value in parts["sealed"].items()}
    assert AESGCM(sealed["key"]).encrypt(bytes(12), sealed["plain"], None) == sealed["sealed"]
    shares = parts["shares"]
    assert shares["limbs"] == reference.limbs(bytes.fromhex(shares["secret"]))
    for x, row in enumerate(shares["shares"], start=1):
        first, second = shares["coefficients_highest_first"]
        for limb, a, b, y in zip(shares["limbs"], first, second, row, strict=True):
            assert y == (a * x * x + b * x + limb) % reference.P
    ring = parts["ring"]
    assert reference.order(bytes.fromhex(ring["roster_hash"]), ring["devices"]) == ring["order"]
    assert len(set(parts["attempts_differ"])) == 3
    counts = set()
    for each in parts["neighbours"]:
        order = reference.order(bytes.fromhex(each["roster_hash"]), each["devices"])
        for index, slots in each["slots"].items():
            assert reference.slots(int(index), order, each["neighbours"]) == slots
        counts.add((each["neighbours"] % 2, each["neighbours"] < each["devices"] - 1))
    assert counts == {(1, False), (0, False), (0, True)}, "odd; even and complete; fewer than all others"


def test_hkdf_is_the_librarys() -> None:
    for size in (0, 1, 200):
        info = bytes(range(200))[:size]
        expected = HKDF(SHA256(), 32, None, info).derive(b"secret" * 6)
        assert keys.derive(b"secret" * 6, info) == expected == reference.hkdf(b"secret" * 6, info)


def test_x25519_is_rfc_7748s() -> None:
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    result = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert reference.x25519(scalar, point).hex() == result


@pytest.mark.parametrize("point", sorted(keys._SMALL_ORDER))
def test_small_order_points_are_those_that_give_a_zero_secret(point: int) -> None:
    for alias in (point, point + reference.CURVE):
        if alias < 2**255:
            for top in (0, 1 << 255):
                public = (alias | top).to_bytes(32, "little")
                assert not keys.usable(public)
                assert reference.x25519(bytes(range(32)), public) == bytes(32)
    assert keys.usable((9).to_bytes(32, "little"))

"""Who signed which plan: only the key, only these bytes, only for this purpose."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.errors import BadInput
from fa_core.plan import SignedPlan, canonical, sign, verify
from tests.plan.samples import broken, good

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


def test_a_signature_holds_for_its_bytes_and_key() -> None:
    data = canonical(good())
    assert verify(data, sign(data, KEY), PUBLIC)
    assert sign(data, KEY) == sign(data, KEY)


def test_one_changed_bit_breaks_it() -> None:
    data = canonical(good())
    signature = sign(data, KEY)
    assert not verify(data[:-1] + b"!", signature, PUBLIC)
    for place in range(64):
        turned = bytearray(signature)
        turned[place] ^= 1
        assert not verify(data, bytes(turned), PUBLIC)


def test_another_key_is_not_believed() -> None:
    data = canonical(good())
    assert not verify(data, sign(data, OTHER_KEY), PUBLIC)


def test_a_bare_signature_over_the_same_bytes_is_not_a_plan_signature() -> None:
    data = canonical(good())
    assert not verify(data, KEY.sign(data), PUBLIC)


@pytest.mark.parametrize(
    "key,signature", [(b"", b"x" * 64), (b"x" * 31, b"x" * 64), (PUBLIC, b""), (b"\xff" * 32, b"\xff" * 64)]
)
def test_what_is_no_key_or_signature_is_no_error(key: bytes, signature: bytes) -> None:
    assert verify(b"plan", signature, key) is False


def test_a_signature_file_signs_its_plan_alone() -> None:
    signed = SignedPlan.from_text(SignedPlan.of(good(), KEY).text(), "x.sig")
    assert signed == SignedPlan.of(good(), KEY)
    assert signed.key == PUBLIC
    assert signed.signs(good())
    assert not signed.signs(good(broken("revision: 3", "revision: 4")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"plan": 1, "key": 2, "signature": 3}',
        '{"plan": "", "key": "zz", "signature": ""}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_no_signature_is_reported(text: str) -> None:
    with pytest.raises(
        BadInput, match=r"x\.sig: this is no signature of a plan; make one with `fa plan sign`"
    ):
        SignedPlan.from_text(text, "x.sig")

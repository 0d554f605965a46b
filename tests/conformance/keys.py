"""Keys of public names, for vectors."""

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.conformance.world import World
from fa_core.trust.enrolment import Authority


def key(name: str) -> Ed25519PrivateKey:
    """Return the signing key of a public name."""
    return Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())


def world(name: str) -> World:
    """Return the keys of a public name."""
    plan, log, witness, authority = (
        key(f"{name} {role}") for role in ("plan", "log", "witness", "authority")
    )
    return World(plan, log, witness, Authority(authority))

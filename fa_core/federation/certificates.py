"""TLS certificates and node keys of a federation, made with `cryptography`: on NIST P-256, with which a new
connection costs a server a quarter of what P-384 does, and on P-384, which is what Flower asks of a node.

One authority signs one server certificate, whose names are the SuperLink's. A SuperNode is known by its key
alone: Flower keeps the public halves that the operator registers. Private files are readable by their owner
only, and nothing that is there is ever overwritten.
"""

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fa_core.errors import BadInput

AUTHORITY_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=397)
EARLIER = timedelta(days=1)
"""How long before now a certificate counts already: clocks differ."""


def make_tls(folder: Path, name: str, host: str) -> None:
    """Make ca.key, ca.crt, server.key and server.crt in `folder`, for a SuperLink called `host`."""
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([_common_name(f"{name} federation authority")])
    root = (
        _begin(issuer, issuer, authority, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(authority, SHA256())
    )
    subject = x509.Name([_common_name(host)])
    leaf = (
        _begin(subject, issuer, server, SERVER_LIFE, authority)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(host)), critical=False)
        .sign(authority, SHA256())
    )
    write_private(folder / "ca.key", _private(authority))
    write_private(folder / "server.key", _private(server))
    (folder / "ca.crt").write_bytes(root.public_bytes(Encoding.PEM))
    (folder / "server.crt").write_bytes(leaf.public_bytes(Encoding.PEM))


def make_node_key(private: Path) -> None:
    """Make a SuperNode's key at `private` (OpenSSH, P-384) and its public half beside it (.pub)."""
    key = ec.generate_private_key(ec.SECP384R1())
    write_private(private, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    private.with_suffix(".pub").write_bytes(public + b"\n")


def public_bytes(public: Path) -> bytes:
    """Return a node's public key as Flower registers it: PEM. Raises BadInput for anything else."""
    try:
        key = load_ssh_public_key(public.read_bytes())
    except (OSError, ValueError):
        raise BadInput(f"{public}: expected a node's public key, as `fa federation init` makes it") from None
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read. Raises BadInput where one is there."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BadInput(f"{path} exists already; a key is never overwritten") from None
    with os.fdopen(handle, "wb") as file:
        file.write(data)


def _common_name(text: str) -> x509.NameAttribute[str]:
    """Return a name for people, cut to the 64 characters of X.509; a host is checked by its full name."""
    return x509.NameAttribute(NameOID.COMMON_NAME, text[:64])


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    life: timedelta,
    signer: ec.EllipticCurvePrivateKey | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((signer or key).public_key()), critical=False
        )
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _names(host: str) -> list[x509.GeneralName]:
    local: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    try:
        own: x509.GeneralName = x509.IPAddress(ip_address(host))
    except ValueError:
        own = x509.DNSName(host)
    return [own, *(each for each in local if each != own)]


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

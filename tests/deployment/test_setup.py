"""A federation's directory: keys that only their owner reads, certificates that hold, quiet units."""

import json
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from ruamel.yaml import YAML

from fa_core.errors import BadInput
from fa_core.federation import setup
from fa_core.federation.directory import Federation, Settings, open_federation, socket_path
from fa_core.federation.lab import find_lab, read_lab
from fa_core.federation.processes import QUIET, node, superexec, superlink, witness
from fa_core.federation.runs import find
from fa_core.flower.superlink import Node


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return setup.init(tmp_path_factory.mktemp("here") / "lab", Settings(name="lab", port=23000))


def test_what_is_private_is_the_owners_alone(federation: Federation) -> None:
    modes = {
        str(file.relative_to(federation.folder)): stat.S_IMODE(file.stat().st_mode)
        for file in federation.folder.rglob("*")
        if file.suffix in (".key", ".secret")
    }
    assert len(modes) == 2 + 3 + 1 + 1 + 3 + 1
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(federation.folder.stat().st_mode) == 0o700


def test_the_servers_certificate_is_good_for_its_address_and_no_other(federation: Federation) -> None:
    tls = federation.folder / "tls"
    leaf = x509.load_pem_x509_certificate((tls / "server.crt").read_bytes())
    root = x509.load_pem_x509_certificate((tls / "ca.crt").read_bytes())
    leaf.verify_directly_issued_by(root)
    for name, good in (("127.0.0.1", True), ("10.0.0.1", False)):
        assert shakes_hands(tls, name) is good


def shakes_hands(tls: Path, name: str) -> bool:
    """Shake hands in memory with the server's certificate, as a client who trusts the authority."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tls / "server.crt", tls / "server.key")
    client = ssl.create_default_context(cafile=tls / "ca.crt")
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(down, up, server_hostname=name)
    there = server.wrap_bio(up, down, server_side=True)
    for _ in range(3):
        for end in (here, there):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return here.version() is not None


def test_node_keys_are_on_p_384(federation: Federation) -> None:
    key = load_ssh_private_key(federation.node_key(0).read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp384r1"


def test_no_key_is_in_a_command_line(federation: Federation) -> None:
    secrets = [
        file.read_text().strip()
        for file in federation.folder.rglob("*")
        if file.suffix in (".key", ".secret") and "BEGIN" not in file.read_text()
    ]
    processes = [superlink(federation), superexec(federation), witness(federation), node(federation, 0, 5)]
    for process in processes:
        assert not any(secret in " ".join(process.command) for secret in secrets)


def test_units_and_compose_file_keep_flower_quiet(federation: Federation) -> None:
    units = federation.folder / "units"
    written = sorted(file.name for file in units.iterdir())
    assert written == [
        "compose.yaml",
        "owners.sh",
        "unheard-device@.service",
        "unheard-node@.service",
        "unheard-superexec.service",
        "unheard-superlink.service",
        "unheard-witness.service",
    ]
    for file in units.glob("*.service"):
        text = file.read_text()
        assert all(f"Environment={name}={value}\n" in text for name, value in QUIET.items())
        assert str(federation.folder) not in text
    composed = YAML(typ="safe").load((units / "compose.yaml").read_text())
    assert sorted(composed["services"]) == ["device-00", "node-00", "superexec", "superlink", "witness"]
    for service in composed["services"].values():
        assert service["environment"].items() >= QUIET.items()
    mounted = composed["services"]["node-00"]["volumes"]
    assert not any("hubs" in mount or "authority" in mount for mount in mounted)


def test_a_federation_is_never_made_over_another(federation: Federation) -> None:
    with pytest.raises(BadInput, match="is not empty"):
        setup.init(federation.folder, federation.settings)


def test_a_missing_federation_lab_or_run_is_named(federation: Federation, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=r"no federation at .*, and the engines local, simulation, tables need"
    ):
        open_federation(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="has no lab yet"):
        read_lab(federation)
    with pytest.raises(BadInput, match="no run begins"):
        find(federation, "latest")
    assert not setup.status(federation).up
    assert not setup.down(federation)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 3", "name: Input should be a valid string"),
        ("name = 'x'\nport = 80", "port: Input should be greater"),
        ("name = 'x'\nnodes = 0", "nodes: Input should be greater"),
        ("name = 'x'\nteh = 1", "teh: Extra inputs are not permitted"),
        ("name =", "is not TOML"),
        ("port = " + "9" * 5000, "is not TOML"),
        ("name = " + "[" * 20000, "is not TOML"),
    ],
)
def test_invalid_settings_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "federation.toml").write_text(text)
    with pytest.raises(BadInput, match=message):
        open_federation(tmp_path)


@pytest.mark.parametrize(
    ("status", "activated", "started", "standing"),
    [
        ("online", "2026-01-01T12:00:05+00:00", "2026-01-01T12:00:00+00:00", "online"),
        ("online", "2026-01-01T12:00:05+00:00", "2026-01-01T12:00:09+00:00", "signing on"),
        ("online", "2026-01-01T12:00:05+00:00", "", "online"),
        ("online", "2026-01-01T11:59:59+00:00", "", "signing on"),
        ("online", "", "2026-01-01T12:00:00+00:00", "signing on"),
        ("offline", "2026-01-01T12:00:05+00:00", "2026-01-01T12:00:09+00:00", "offline"),
    ],
)
def test_a_node_that_started_anew_is_online_once_it_signed_on(
    status: str, activated: str, started: str, standing: str
) -> None:
    """Its SuperLink takes it for online for a while after it died."""
    known = Node(1, "node-00", status, activated, b"")
    said = {"since": "2026-01-01T12:00:00+00:00", "processes": {"node-00": {"since": started}}}
    assert setup._standing(known, said) == standing


def test_a_damaged_lab_is_refused(tmp_path: Path) -> None:
    made = setup.init(tmp_path / "lab", Settings(name="lab"))
    (made.folder / "lab.json").write_text(json.dumps({"nodes": 3}))
    with pytest.raises(BadInput, match="is damaged"):
        find_lab(made)


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(BadInput, match="longer than a socket"):
        socket_path(Path("/" + "x" * 107))
    assert socket_path(Path("/" + "x" * 106))


def test_a_federation_whose_sockets_would_not_fit_writes_nothing(tmp_path: Path) -> None:
    """FIELD 8: a refusal that leaves files behind makes the next attempt fail too."""
    folder = tmp_path / ("x" * 60) / ("y" * 60)
    with pytest.raises(BadInput, match="longer than a socket"):
        setup.init(folder, Settings(name="lab"))
    assert not any(tmp_path.iterdir())


def test_a_long_name_and_host_make_a_federation(tmp_path: Path) -> None:
    host = "superlink." + "x" * 60 + ".example.org"
    made = setup.init(tmp_path / "lab", Settings(name="n" * 64, host=host, nodes=1))
    assert made.certificate.exists()

"""The socket: what a relay can send and receive, and that a hostile relay obtains nothing."""

import ctypes
import errno
import json
import os
import resource
import secrets
import signal
import socket
import stat
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from clients.device.interface import STAGES, Declined, Reason, Stage
from clients.device.keys import write_key_file
from clients.device.process import quiet_log
from clients.device.records import Records
from clients.device.redaction import guard_crashes
from clients.device.serve import Endpoint, Server, SocketDevice, harden, peer
from fa_core.errors import BadInput, Refused
from fa_core.secagg import IN_ORDER
from fa_core.wire.invitation import encode
from tests.device.setup import KEY, NOW, Setup, World, drive, make_setup, plan_of, reason_of

NO = bytes(5)
"""The one reply to everything that is declined: not answered, no bytes."""


class Echo:
    """A device that echoes each request, declines on demand and breaks on demand."""

    def handle(self, stage: Stage, request: bytes) -> bytes:
        if request == b"decline":
            raise Declined(Reason.CONSENT)
        if request == b"break":
            raise ValueError("CANARY")
        return stage.encode() + b":" + request


@contextmanager
def serving(endpoint: Endpoint, devices: dict[int, object]) -> Iterator[None]:
    """Serve in a thread of this process."""
    stop = threading.Event()
    server = Server(devices, endpoint)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, args=(stop.is_set, 0.01))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    return Endpoint(tmp_path / "device.sock")


def say(path: Path, data: bytes) -> bytes:
    """Say raw bytes to a socket and return everything that comes back."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(60)  # a guard against hanging, not a measure
        try:
            connection.connect(str(path))
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            received = b""
            while part := connection.recv(1 << 16):
                received += part
        except (BrokenPipeError, ConnectionResetError):
            return b""
        return received


def request(stage: int, data: bytes, slot: int = 0, version: int = 2, length: int | None = None) -> bytes:
    return struct.pack(">BBHI", version, stage, slot, len(data) if length is None else length) + data


def test_each_device_of_a_hub_is_reached_by_its_slot(endpoint: Endpoint) -> None:
    class Other(Echo):
        def handle(self, stage: Stage, request: bytes) -> bytes:
            return b"other " + super().handle(stage, request)

    with serving(endpoint, {0: Echo(), 1: Other()}):
        assert [SocketDevice(endpoint.path, 0).handle(stage, b"x") for stage in STAGES] == [
            b"join:x", b"shares:x", b"confirm:x", b"masked:x", b"unmask:x", b"dispute:x",
            b"report:x",
        ]  # fmt: skip
        assert SocketDevice(endpoint.path, 1).handle("join", b"") == b"other join:"
        large = secrets.token_bytes(3_000_000)
        assert SocketDevice(endpoint.path).handle("masked", large) == b"masked:" + large


def test_one_connection_carries_many_requests(endpoint: Endpoint) -> None:
    with serving(endpoint, {0: Echo()}):
        received = say(endpoint.path, request(0, b"a") + request(2, b"decline") + request(4, b"bc"))
        assert received == b"\1\0\0\0\6join:a" + NO + b"\1\0\0\0\x09unmask:bc"


def test_every_refusal_is_the_same_bytes(endpoint: Endpoint) -> None:
    with serving(endpoint, {0: Echo()}):
        for data, slot in ((b"decline", 0), (b"break", 0), (b"", 7), (b"decline", 65535)):
            assert say(endpoint.path, request(1, data, slot)) == NO
            assert reason_of(
                lambda data=data, slot=slot: SocketDevice(endpoint.path, slot).handle("shares", data)
            ) == ("ORDER")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        request(9, b""),
        request(0, b"", version=1),
        request(0, b"short", length=6),
    ],
)
def test_a_malformed_request_gets_no_reply_and_stops_no_other(endpoint: Endpoint, data: bytes) -> None:
    with serving(endpoint, {0: Echo()}):
        assert say(endpoint.path, data) == b""
        assert say(endpoint.path, request(0, b"", length=2**32 - 1)) == b""
        assert SocketDevice(endpoint.path).handle("join", b"x") == b"join:x"


def test_a_relay_without_a_device_gets_a_refusal(endpoint: Endpoint) -> None:
    assert reason_of(lambda: SocketDevice(endpoint.path).handle("join", b"")) == "ORDER"


def test_the_socket_is_this_users_unless_others_are_named(tmp_path: Path) -> None:
    for relays, mode in ((frozenset(), 0o600), (frozenset({65534}), 0o666)):
        endpoint = Endpoint(tmp_path / "device.sock", relays)
        with serving(endpoint, {}):
            assert stat.S_IMODE(endpoint.path.stat().st_mode) == mode
        assert not endpoint.path.exists()


def test_a_folder_that_others_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(Refused, match="alone may write"):
        Server({}, Endpoint(tmp_path / "open" / "device.sock"))
    with pytest.raises(BadInput, match="cannot be read"):
        Server({}, Endpoint(tmp_path / "missing" / "device.sock"))


def test_only_a_socket_that_nobody_serves_is_replaced(endpoint: Endpoint) -> None:
    with serving(endpoint, {0: Echo()}), pytest.raises(Refused, match="already serves"):
        Server({}, endpoint)
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(endpoint.path))
    left.close()
    with serving(endpoint, {0: Echo()}):
        assert SocketDevice(endpoint.path).handle("join", b"") == b"join:"
    endpoint.path.write_text("a diary")
    with pytest.raises(Refused, match="not a socket"):
        Server({}, endpoint)
    assert endpoint.path.read_text() == "a diary"


def test_a_whole_round_goes_through_the_socket(tmp_path: Path, endpoint: Endpoint) -> None:
    world = World(tmp_path)
    setup = make_setup(tmp_path, world)
    with serving(endpoint, {0: setup.device()}):
        invitation = world.invite(plan_of(), world.release(), NOW, NOW)
        result, _ = drive(world, plan_of(), SocketDevice(endpoint.path), invitation)
    assert result.total.any()
    assert len(Records(setup.store()).contributions()) == 1


# As other users.

DEVICE, RELAY, STRANGER = 61_001, 61_002, 61_003

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play several users")


def become(user: int) -> None:
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def as_user(user: int, work: Callable[[], object]) -> object:
    """Run `work` in a process of another user and return what it returned, by JSON."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            become(user)
            with os.fdopen(writing, "w") as pipe:
                json.dump(work(), pipe)
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, said
    return json.loads(said)


@contextmanager
def device_process(setup: Setup, endpoint: Endpoint, log: Path) -> Iterator[int]:
    """Run the device as its own user until the block ends; yield its process id."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT, 0o600), 2)
            become(DEVICE)
            harden()
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            guard_crashes(sys.stderr)
            quiet_log()
            stop = threading.Event()
            signal.signal(signal.SIGTERM, lambda *_: stop.set())
            server = Server({0: setup.device()}, endpoint)
            os.write(writing, b"ready")
            server.run(stop.is_set, 0.02)
        finally:
            os._exit(0)
    os.close(writing)
    assert os.read(reading, 5) == b"ready", log.read_text()
    os.close(reading)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


@pytest.fixture
def at_home(tmp_path: Path) -> tuple[World, Setup, Endpoint, Path]:
    """A device's own folders, owned by its user. The data may be looked for; the socket may be reached."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    data, run = tmp_path / "data", tmp_path / "run"
    for folder in (data, run):
        folder.mkdir()
        folder.chmod(0o755)  # whatever the umask
    world = World(tmp_path)
    setup = make_setup(data, world)
    write_key_file(data / "store.key", KEY)
    for path in (data, run, *data.iterdir()):
        os.chown(path, DEVICE, DEVICE)
    return world, setup, Endpoint(run / "device.sock", frozenset({RELAY})), tmp_path / "log"


def thefts(setup: Setup, endpoint: Endpoint, process: int) -> list[str]:
    """Try everything; return what succeeded."""
    got = []

    def attempt(name: str, theft: Callable[[], object]) -> None:
        try:
            theft()
        except OSError:
            return
        got.append(name)

    data = setup.path.parent
    for path in (setup.path, data / "store.key", data / "store.db-journal"):
        attempt(f"read {path.name}", path.read_bytes)
        attempt(f"write {path.name}", lambda path=path: path.open("r+b"))
    attempt("make a file among the data", lambda: (data / "store.db-wal").write_bytes(b"x"))
    attempt("remove the store", setup.path.unlink)
    attempt("replace the socket", endpoint.path.unlink)
    attempt("make a socket beside it", lambda: (endpoint.path.parent / "other").write_bytes(b"x"))
    for name in ("mem", "environ", "maps", "io", "auxv"):
        attempt(f"/proc {name}", lambda name=name: Path(f"/proc/{process}/{name}").read_bytes())
    for name in ("cwd", "exe", "fd"):
        attempt(f"/proc {name}", lambda name=name: os.listdir(f"/proc/{process}/{name}"))
    attempt("signal the process", lambda: os.kill(process, signal.SIGUSR1))
    if ctypes.CDLL(None, use_errno=True).ptrace(16, process, None, None) == 0:
        got.append("ptrace")
    elif ctypes.get_errno() not in (errno.EPERM, errno.EACCES):
        got.append(f"ptrace failed for another reason: {os.strerror(ctypes.get_errno())}")
    return got


def wrong_words(world: World) -> list[bytes]:
    """Return everything wrong that a relay may think of to say."""
    sound = world.invite(plan_of(), world.release(), NOW, NOW)
    forger = World(world.folder, log_key=world.log_key, witness_key=world.witness_key)
    forged = forger.invite(plan_of(epsilon="100"), world.release(), NOW, NOW)
    other = world.invite(plan_of("other"), world.release(), NOW + timedelta(hours=30), NOW)
    words = [
        request(stage, data, slot)
        for stage in range(4)
        for slot in (0, 1, 65535)
        for data in (
            b"",
            b"status",
            b"../store.db\0",
            secrets.token_bytes(300),
            encode(forged),
            encode(other),
        )
    ]
    words += [request(stage, encode(sound)[:-1]) for stage in range(6)]
    words += [request(6, b""), request(255, b"x"), b"SELECT * FROM wake_events;", bytes(4096)]
    return words


@as_root
def test_a_hostile_relay_obtains_nothing(at_home: tuple[World, Setup, Endpoint, Path]) -> None:
    world, setup, endpoint, log = at_home
    with device_process(setup, endpoint, log) as process:
        assert as_user(RELAY, lambda: thefts(setup, endpoint, process)) == []
        words = wrong_words(world)  # here: another user may not read what Python would load to make them
        said = as_user(RELAY, lambda: sorted({say(endpoint.path, word).hex() for word in words}))
        assert set(said) <= {NO.hex(), ""}  # type: ignore[call-overload]
    logged = log.read_text()
    assert "declined at join" in logged
    assert not any(word in logged for word in ("okay_nabu", "en-GB", "store.db", "SELECT"))


@as_root
def test_the_thefts_succeed_where_the_files_are_open(
    at_home: tuple[World, Setup, Endpoint, Path],
) -> None:
    """The broken control: the same attempts against a careless device."""
    _, setup, endpoint, _ = at_home
    for path in (setup.path, setup.path.parent / "store.key"):
        path.chmod(0o666)
    reading, writing = os.pipe()
    careless = os.fork()
    if careless == 0:
        become(RELAY)
        os.chdir("/")  # which everybody may list, wherever the tests run
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # may be traced, as a process is that does not harden itself
        ctypes.CDLL(None).prctl(0x59616D61, -1, 0, 0, 0)  # and where Yama stands before that, by anybody
        os.write(writing, b"ready")
        signal.pause()
        os._exit(0)
    assert os.read(reading, 5) == b"ready"
    try:
        got = as_user(RELAY, lambda: thefts(setup, endpoint, careless))
    finally:
        os.kill(careless, signal.SIGKILL)
        os.waitpid(careless, 0)
    expected = {"read store.db", "write store.db", "read store.key", "/proc cwd", "/proc environ", "ptrace"}
    assert expected <= set(got)  # type: ignore[call-overload]


@as_root
def test_a_user_that_is_no_relay_is_disconnected_before_any_reply(
    at_home: tuple[World, Setup, Endpoint, Path],
) -> None:
    world, setup, endpoint, log = at_home
    sound = encode(world.invite(plan_of(), world.release(), NOW, NOW))
    with device_process(setup, endpoint, log):
        assert as_user(STRANGER, lambda: say(endpoint.path, request(0, sound)).hex()) == ""
        assert as_user(RELAY, lambda: len(say(endpoint.path, request(0, sound)))) == 5 + 292  # type: ignore[comparison-overlap]
    assert "is no relay of this device" in log.read_text()


@as_root
def test_a_relay_that_keeps_everything_holds_no_vector(at_home: tuple[World, Setup, Endpoint, Path]) -> None:
    """The counts are exact (central noise), so the mask alone hides them; no two replies are alike."""
    world, setup, endpoint, log = at_home
    plans = [plan_of(name) for name in ("one", "two")]

    def relay() -> list[list[str]]:
        kept = []
        for plan in plans:
            invitation = world.invite(plan, world.release(), NOW, NOW)
            result, said = drive(world, plan, SocketDevice(endpoint.path), invitation)
            changed = said["masked"][0] + b"\0"
            assert say(endpoint.path, request(STAGES.index("masked"), changed)) == NO
            kept.append([said[stage][1].hex() for stage in IN_ORDER] + [json.dumps(result.total.tolist())])
        return kept

    (world.folder / "witness").mkdir()
    os.chown(world.folder / "witness", RELAY, RELAY)
    with device_process(setup, endpoint, log):
        one, two = as_user(RELAY, relay)  # type: ignore[misc]
    assert one[-1] == two[-1]
    counts = np.array(json.loads(one[-1]), "<i8")
    for kind in ("<i4", "<i8"):
        for cells in (counts, counts[:4]):
            assert cells.astype(kind).tobytes().hex() not in "".join(one[:-1] + two[:-1])
    assert all(first != second for first, second in zip(one[:-1], two[:-1], strict=True))


def test_the_process_keeps_its_memory_and_its_files_to_itself(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        harden()
        (tmp_path / "file").write_bytes(b"")
        dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
        os.write(writing, b"%d %d" % (dumpable, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 9) == b"0 0"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


@as_root
def test_the_kernel_says_who_is_at_the_other_end(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    assert peer(ours) == peer(theirs) == os.geteuid()

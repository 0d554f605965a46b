"""The helper as a process of its own: over HTTPS, for its leader alone, and as an operator types it."""

import json
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from secrets import token_bytes
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import typer
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from fa_core.cli.helper import app as helper_commands
from fa_core.cli.run import run
from fa_core.collection import exchange
from fa_core.collection import measured as measuring
from fa_core.collection.exchange import HelperAway, HelperClient, read_address, sealed, unsealed
from fa_core.collection.helper import Helper
from fa_core.collection.leader import BATCH
from fa_core.collection.messages import Batch, Entry
from fa_core.errors import BadInput, Refused
from fa_core.helper_service.process import server
from fa_core.helper_service.service import build
from fa_core.helper_service.settings import Home, read_home
from fa_core.plan import canonical
from fa_core.prio.blocks import ALGORITHM, PROOFS, chunk_of
from fa_core.prio.circuits import SumVec
from fa_core.prio.field import FIELD64
from fa_core.prio.prio3 import Prio3
from fa_core.prio.xof import HmacAes
from fa_core.secagg.identity import CERTIFICATE_SIZE, SIGNATURE_SIZE, signed, verifies
from fa_core.store import open_store
from fa_core.trust import hpke
from fa_core.trust.enrolment import read_key
from tests.collection.setup import plan_text
from tests.collection.world import WINDOW, Collection
from tests.rounds.small import write_fleet

DEVICES = 7
GUARD = 60.0
MEGABYTE = 1 << 20


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collection]:
    monkeypatch.setattr(measuring, "noise_of", lambda layout, role: np.zeros(layout.length, np.int64))
    found = Collection.make(tmp_path / "world", DEVICES)
    yield found
    found.close()
    found.world.store.close()


@pytest.fixture
def home(tmp_path: Path, made: Collection) -> Home:
    """A helper's folder, made by its command, at a port that nobody listens on."""
    pins, files = made.world.pins, {}
    keys = {"authority": pins.authority, "log": pins.log, "witness": pins.witness}
    for name, key in {**keys, "leader": made.leader.public_key}.items():
        files[name] = tmp_path / f"{name}.pub"
        files[name].write_text(key.hex())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [text for name, file in files.items() for text in (f"--{name}", str(file))]
    where = ["--name", f"localhost:{port}", "--socket", str(tmp_path / "witness.sock")]
    done = CliRunner().invoke(helper_commands, ["init", str(tmp_path / "helper"), *where, *options, "--json"])
    assert done.exception is None, done.output
    found = read_home(tmp_path / "helper")
    made.helper_key = read_key(found.folder / "helper.key")
    assert json.loads(done.output)["public_key"] == made.helper.public_key.hex()
    return found


@contextmanager
def serving(home: Home, helper: Helper) -> Iterator[None]:
    """Serve a helper from this process, over TLS."""
    serves = server(home, build(helper, home.pinned().leader, 5.0))
    port = int(home.settings.name.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)) as listening:
        thread = threading.Thread(target=serves.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            end = time.monotonic() + GUARD
            while not serves.started:
                assert time.monotonic() < end
                time.sleep(0.01)
            yield
        finally:
            serves.should_exit = True
            thread.join()


def client(home: Home, made: Collection) -> HelperClient:
    return HelperClient(read_address(home.folder / "helper.json"), made.leader_key)


def test_a_collection_over_https_with_the_helper_away_in_between(home: Home, made: Collection) -> None:
    helper = client(home, made)
    with pytest.raises(HelperAway, match="no answer"):
        made.open(helper)
    with serving(home, made.helper):
        task = made.leader.open(canonical(made.plan), made.release, made.proof(), WINDOW, helper).task
    for report in made.reports(task):
        made.leader.take(task.id, report.encode())
    with pytest.raises(HelperAway):
        made.leader.close(task.id, helper)
    with serving(home, made.helper):
        sums = made.leader.close(task.id, helper)
        stranger = replace(helper, key=Ed25519PrivateKey.generate())
        with pytest.raises(HelperAway, match="status 401"):
            stranger.close(bytes(68))
        with pytest.raises(Refused, match="no such task"):
            helper.close(bytes(68))
        with pytest.raises(Refused, match="not a request for a task"):
            helper.open(bytes(68))
        other = replace(helper.address, authority=other_authority(home))
        with pytest.raises(HelperAway, match="certificate is not trusted"):
            replace(helper, address=other).close(bytes(68))
    assert np.array_equal(sums, made.vectors().sum(axis=0))


def other_authority(home: Home) -> str:
    """The certificate of an authority that signed nothing here."""
    from fa_core.federation.certificates import make_tls

    folder = home.folder / "other"
    folder.mkdir()
    make_tls(folder, "other", "localhost")
    return (folder / "ca.crt").read_text()


def test_a_request_is_of_one_operation_and_one_helper() -> None:
    key = Ed25519PrivateKey.generate()
    leader, helper = key.public_key().public_bytes_raw(), bytes(32)
    body = sealed(key, helper, "batches", b"message")
    assert unsealed(body, leader, helper, "batches") == b"message"
    for broken in (
        unsealed(body, leader, helper, "closings"),
        unsealed(body, leader, b"\1" * 32, "batches"),
        unsealed(body, helper, helper, "batches"),
        unsealed(body + b"\0", leader, helper, "batches"),
        unsealed(b"", leader, helper, "batches"),
    ):
        assert broken is None


def memory_of_requests(number: int) -> int:
    """How many bytes are kept of so many requests of a megabyte, of strangers and of the leader."""
    key, helper = Ed25519PrivateKey.generate(), bytes(32)
    leader = key.public_key().public_bytes_raw()
    tracemalloc.start()
    try:
        for _ in range(number):
            assert unsealed(token_bytes(MEGABYTE), leader, helper, "batches") is None
            own = sealed(key, helper, "batches", token_bytes(MEGABYTE))
            assert unsealed(own, leader, helper, "batches") == own[64:]
        del own
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def test_no_request_to_the_helper_is_kept_in_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: verified by what remembers its arguments, whole bodies stay, also those that nobody signed."""
    before = signed.cache_info()
    assert memory_of_requests(4) < MEGABYTE
    assert signed.cache_info() == before
    monkeypatch.setattr(exchange, "verifies", lru_cache(verifies))
    monkeypatch.setattr(exchange, "_to_sign", lambda helper, operation, message: message)
    assert memory_of_requests(4) > 4 * MEGABYTE


@pytest.mark.parametrize("cells", [5_000, 20_000])
def test_the_largest_batch_fits_a_request(cells: int) -> None:
    """Of what a plan may have, at 5 bits a cell."""
    bits = 5
    circuit = SumVec(FIELD64, cells, (1 << bits) - 1, chunk_of(cells * bits))
    system = Prio3(circuit, ALGORITHM, HmacAes(), PROOFS)
    box = system.helper_size + hpke.OVERHEAD
    parts = (16, 32, system.public_size, box, 32, CERTIFICATE_SIZE, SIGNATURE_SIZE, system.verifier_size)
    batch = Batch(bytes(32), 0, (Entry(*map(bytes, parts)),) * BATCH)
    assert Batch.decode(batch.encode(), system).number == 0
    assert SIGNATURE_SIZE + len(batch.encode()) <= exchange.MOST


def test_a_body_that_is_too_long_or_not_signed_does_not_reach_the_helper() -> None:
    key, reached = Ed25519PrivateKey.generate(), list[bytes]()
    leader, helper = key.public_key().public_bytes_raw(), bytes(32)

    def answer(message: bytes) -> bytes:
        reached.append(message)
        return b"answer"

    work = dict.fromkeys(("open", "verify", "close"), answer)
    client = TestClient(build(cast(Helper, SimpleNamespace(public_key=helper, **work)), leader, 5.0))
    longest = sealed(key, helper, "batches", bytes(exchange.MOST - SIGNATURE_SIZE))
    for body, status in ((bytes(exchange.MOST), 401), (b"", 401), (longest + b"\0", 413), (longest, 200)):
        assert client.post("/v1/batches", content=body).status_code == status
    assert reached == [longest[SIGNATURE_SIZE:]]


def test_a_folder_that_is_wrong_is_refused_in_words(home: Home, made: Collection, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        read_home(tmp_path)
    for text, says in (("name = 7", "name"), ("=", "not TOML")):
        (home.folder / "helper.toml").write_text(text)
        with pytest.raises(BadInput, match=says):
            read_home(home.folder)
    file = home.folder / "helper.json"
    good = read_address(file)
    authorities = ("", "no certificate", "é", 2 * good.authority)
    others = [replace(good, authority=text).encode() for text in authorities]
    others += [replace(good, public_key=b"").encode(), replace(good, name="localhost:x").encode()]
    for text in ("{}", "[]", "[" * 9000, *others):
        file.write_text(text)
        with pytest.raises(BadInput, match="not a helper's file"):
            read_address(file)
    for authority in authorities[:3]:
        unread = HelperClient(replace(good, authority=authority), made.leader_key)
        with pytest.raises(BadInput, match="holds no certificate"):
            unread.close(b"")


# `fa run`.


@pytest.fixture
def fa_run(tmp_path: Path) -> tuple[Path, typer.Typer]:
    app = typer.Typer()
    app.command()(run)
    text = plan_text("sum: two_aggregators, min_cohort: 50").replace("[[], [accent]]", "[[]]")
    segments = text[text.index("segments:") : text.index("group_by:")]
    (tmp_path / "plan.yaml").write_text(text.replace(segments, ""))
    write_fleet(tmp_path / "fleet", 52)
    return tmp_path, app


def invoke(fa_run: tuple[Path, typer.Typer], *arguments: str) -> Result:
    folder, app = fa_run
    places = [str(folder / "plan.yaml"), "--fleet", str(folder / "fleet"), "--store", str(folder / "store")]
    return CliRunner().invoke(app, [*places, *arguments])


def test_a_run_ends_as_a_release_that_says_what_leader_and_helper_could_learn(
    fa_run: tuple[Path, typer.Typer],
) -> None:
    done = invoke(fa_run)
    assert done.exception is None, done.output
    assert "52 devices counted of 52 invited" in done.output
    assert "the leader, who knows its own noise, faces rho" in done.output
    assert "Leader and helper together could read every report" in done.output
    assert "Each report proved that it keeps its device's bounds" in done.output
    assert "a dishonest one can move any number" not in done.output
    with open_store(str(fa_run[0] / "store")) as store:
        release = store.release(store.find("latest").id)
        assert release.secure_aggregation
        assert len(store.published("task", release.id)) == 1


def test_another_engine_refuses_such_a_plan_before_anything_is_charged(
    fa_run: tuple[Path, typer.Typer],
) -> None:
    done = invoke(fa_run, "--engine", "tables")
    assert isinstance(done.exception, Refused)
    assert "only the engine `local` and federations form" in str(done.exception)
    with open_store(str(fa_run[0] / "store")) as store:
        assert store.charges("small") == ()

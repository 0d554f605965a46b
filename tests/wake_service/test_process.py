"""The process: where it answers, which model acts while it does, and how it ends."""

import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from wyoming.audio import AudioStop
from wyoming.client import AsyncClient
from wyoming.info import Describe

from clients.device.owner import DeviceHome
from clients.runtime.sources import PIECE
from clients.runtime.switching import CHOOSE
from clients.wake_service import process
from clients.wake_service.keeper import Keeper
from clients.wake_service.process import Address, serve
from clients.wake_service.stream import Stream
from fa_core.cli.device import app
from fa_core.errors import BadInput, Refused
from fa_core.publication import directory
from tests.device.publishing import WORD
from tests.device.setup import NOW
from tests.device.test_cli import example
from tests.device.test_following import CANDIDATE, Served
from tests.wake_service.serving import Clocks, chunk, run, started

QUIET = np.zeros(PIECE, np.int16)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A device, served in this process: what shuts a process off from others is left out."""
    for name in ("harden", "guard_crashes", "quiet_log"):
        monkeypatch.setattr(process, name, lambda *_: None)
    (tmp_path / "device.toml").write_text(example().replace("/srv/unheard/published", "published"), "utf-8")
    DeviceHome.make(tmp_path, datetime.now(UTC)).store.close()
    return tmp_path


def answered(folder: Path, uri: str, scene: Callable[[AsyncClient], Awaitable[None]]) -> list[str]:
    """Serve until a scene was played, and end by a signal; return what was printed."""
    said: list[str] = []
    played: Future[None] = Future()

    def play(at: str) -> None:
        async def whole() -> None:
            async with AsyncClient.from_uri(at) as client:
                await scene(client)

        try:
            run(whole())
            played.set_result(None)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("answers at"):
            threading.Thread(target=play, args=(line.split()[2],), daemon=True).start()

    serve(folder, uri, say)
    assert played.done()
    return said


@pytest.mark.parametrize("uri", ["tcp://127.0.0.1:0", "tcp://localhost:0", "unix://{folder}/wake.sock"])
def test_it_answers_at_its_address_until_a_signal(folder: Path, uri: str) -> None:
    async def scene(client: AsyncClient) -> None:
        await client.write_event(Describe().event())
        for event in (*started(WORD), chunk(), AudioStop().event()):
            await client.write_event(event)
        found = [await client.read_event() for _ in range(2)]
        assert [each and each.type for each in found] == ["info", "not-detected"]

    folder.chmod(0o700)
    consent, said = answered(folder, uri.format(folder=folder), scene)
    assert consent == "there is no consent to quality_metrics: wake words are detected, and nothing is stored"
    assert said.endswith(f" for {WORD}")
    assert not (folder / "wake.sock").exists()


@pytest.mark.parametrize(
    "uri",
    [
        "", "10400", "tcp://127.0.0.1", "tcp://:10400", "tcp://127.0.0.1:99999", "tcp://127.0.0.1:10400/path",
        "http://127.0.0.1:10400", "unix://relative", "unix:", "stdio://", "tcp://[::1", "tcp://a@b:1",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_before_anything_is_opened(tmp_path: Path, uri: str) -> None:
    with pytest.raises(BadInput, match="an address is tcp://HOST:PORT or unix:///PATH"):
        serve(tmp_path / "nowhere", uri, print)


def test_addresses() -> None:
    assert Address.parse("tcp://[::1]:10400") == Address("::1", 10400)
    assert Address.parse("unix:///run/unheard/wake.sock") == Address(path=Path("/run/unheard/wake.sock"))


def test_an_address_that_cannot_be_had_is_named(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadInput, match=r"cannot be had.*in use"):
            serve(folder, f"tcp://127.0.0.1:{taken.getsockname()[1]}", lambda line: None)
    with pytest.raises(BadInput, match="cannot be had"):
        serve(folder, "tcp://203.0.113.1:10400", lambda line: None)  # an address of nobody's (RFC 5737)
    (folder / "file").write_text("mine")
    folder.chmod(0o700)
    with pytest.raises(Refused, match="not a socket; it was left as it is"):
        serve(folder, f"unix://{folder}/file", lambda line: None)
    assert (folder / "file").read_text() == "mine"


def test_a_device_whose_words_have_no_detector_is_not_served(folder: Path) -> None:
    def refused(*words: str) -> str:
        result = CliRunner().invoke(app, ["wyoming", *words])
        assert isinstance(result.exception, BadInput)
        return str(result.exception)

    here = "--dir", str(folder)
    assert refused(*here, "--model", "micro-2") == "no detector 'micro-2'; there are: micro-1, embed-1"
    settings = folder / "device.toml"
    for label, model in (("computer", "micro-1"), ("alexa", "embed-1")):
        settings.write_text(example().replace('["okay_nabu"]', f'["{label}"]'), "utf-8")
        said = refused(*here, "--model", model)
        assert f"names no wake word with a detector; {model} has: okay_nabu" in said
    assert refused("--dir", "nowhere")


# Which model acts.


def test_the_model_that_acts_changes_while_a_stream_goes_on(served: Served) -> None:
    clocks = Clocks()
    keeper = Keeper(served.home, (WORD,), clocks.clock())
    stream = Stream((WORD,), keeper.session, keeper.writer, NOW, NOW)

    def why() -> str:
        """Return what the stream follows, after the next look."""
        clocks.move(CHOOSE.total_seconds())
        keeper.look()
        stream.feed(QUIET, clocks.now)
        return str(stream._sessions[WORD].choice.why)  # type: ignore[attr-defined]

    served.publish_model()
    assert why() == "there is no rollout"
    served.publish("shadow")
    served.follower().ask(NOW)
    assert why().endswith("embed@1 is in shadow, embed-2 scores too")
    served.publish("live", 3, share=1)
    served.follower().ask(NOW)
    assert why().endswith("and this is one of them")
    clocks.move(timedelta(days=8).total_seconds())  # offline until the lease has run out
    assert why() == "embed-1 acts: the lease of embed@1 ran out"
    stream.finish(clocks.now)
    assert keeper.writer.write(clocks.now, closing=True)


def test_where_the_chosen_model_was_damaged_the_devices_own_acts(served: Served) -> None:
    served.publish("live", 3, share=1)
    served.publish_model()
    served.follower().ask(NOW)
    keeper = Keeper(served.home, (WORD,), Clocks().clock())
    kept = served.home.folder / "models" / directory.artefact_name(sha256(CANDIDATE).hexdigest())
    for damaged, version in ((False, "embed-2"), (True, "micro-1")):
        if damaged:
            kept.write_bytes(CANDIDATE[:-1] + bytes([CANDIDATE[-1] ^ 1]))
        session = keeper.session(WORD, keeper.writer, NOW, NOW)
        listener = session._session._listener  # type: ignore[attr-defined]
        assert listener._episodes._models[0].detector.model_version == version

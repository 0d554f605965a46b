"""Canary strings, planted wherever text could get in; then a search of everything that came out."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from clients.device.interface import Declined, Stage
from clients.device.journal import sentence
from clients.device.owner import entry_object
from clients.device.process import quiet_log
from clients.device.redaction import Redactor, guard_crashes
from clients.device.serve import Endpoint, Server, SocketDevice
from clients.device.store import Store
from clients.runtime.detectors import SAMPLE_RATE
from clients.runtime.events import Listener
from clients.runtime.sources import file_pieces
from fa_core.errors import BadInput
from fa_core.wire.invitation import encode
from tests.device.setup import NOW, Setup, World, drive, make_setup, plan_of, wake
from tests.device.test_runtime import Scripted
from tests.device.test_store import decrypted

CANARIES = (
    "Zephyrine Quillfeather",
    "+44 7700 900142",
    "z.quillfeather@example.org",
    "17 Larkspur Lane",
    "xyzzy-plugh",
)


def sightings(data: bytes) -> list[str]:
    """Return the canaries that are in the data, whole or in part, in either text encoding."""
    # Parts of fewer bytes come up by chance in what is encrypted: one of four in 1 of 40,000 stores.
    parts = {part for canary in CANARIES for part in [canary, *canary.split()] if len(part) > 5}
    return sorted(part for part in parts if part.encode() in data or part.encode("utf-16-le") in data)


def plant_in_audio(folder: Path, store: Store) -> None:
    """Play a file whose tags hold canaries."""
    path = folder / "tagged.wav"
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as sound:
        sound.title, sound.artist, sound.comment = CANARIES[0], CANARIES[2], CANARIES[4]
        sound.write(np.zeros(5 * SAMPLE_RATE, np.int16))
    assert sightings(path.read_bytes())
    listener = Listener(Scripted({10: 0.9}), NOW)
    detections = [event for piece in file_pieces(path) for event in listener.feed(piece)] + listener.finish()[
        0
    ]
    assert len(detections) == 1
    path.unlink()


def plant_in_events(store: Store) -> list[str]:
    """Write canaries into every column of every kind; return what was said about those refused."""
    said = []
    for canary in CANARIES:
        open_labels = [{"wake_word": canary}, {"model_version": canary}]
        refused = [{name: canary} for name in ("outcome", "score", "label_source", "snr_db")] + [{canary: 1}]
        for changes in open_labels + refused:
            try:
                store.record("wake_events", [wake(1, **changes)], "quality_metrics", NOW)
            except BadInput as error:
                said.append(str(error))
        command = {"time": NOW, "intent_predicted": f"call {canary}", "intent_actual": canary}
        store.record("command_events", [command], "quality_metrics", NOW)
    assert len(said) == 5 * len(CANARIES)
    return said


class Blabbing:
    """A device whose defects quote what they hold."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def handle(self, stage: Stage, request: bytes) -> bytes:
        if request in (b"value", b"chain"):
            try:
                raise ValueError(" ".join(CANARIES))
            except ValueError as error:
                if request == b"chain":
                    raise OSError(CANARIES[0]) from error
                raise
        return self._inner.handle(stage, request)  # type: ignore[attr-defined, no-any-return]


def crash_output(setup: Setup, endpoint: Endpoint, log: Path) -> None:
    """Serve, log, break and crash in a process of its own, its whole output going to a file."""
    child = os.fork()
    if child == 0:
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT)
            os.dup2(output, 1)
            os.dup2(output, 2)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            quiet_log()
            guard_crashes(sys.stderr)
            stop = threading.Event()
            signal.signal(signal.SIGTERM, lambda *_: stop.set())
            dying = threading.Thread(target=lambda: {}[" ".join(CANARIES)])
            dying.start()
            dying.join()
            Server({0: Blabbing(setup.device())}, endpoint).run(stop.is_set, 0.01)
            try:
                raise RuntimeError(CANARIES[4])
            except RuntimeError:
                sys.excepthook(*sys.exc_info())  # what the interpreter does at the end of a crash
        finally:
            os._exit(0)
    try:
        while not endpoint.path.exists():
            assert os.waitpid(child, os.WNOHANG) == (0, 0), log.read_text()
            time.sleep(0.01)
        talk(setup, endpoint)
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


def talk(setup: Setup, endpoint: Endpoint) -> None:
    """Take part once through the socket, and send what makes the device break; nothing of it may come out."""
    relay = SocketDevice(endpoint.path)
    messages = []
    for request in (b"value", b"chain", " ".join(CANARIES).encode()):
        with pytest.raises(Declined) as declined:
            relay.handle("join", request)
        messages.append(str(declined.value).encode())
    _, said = drive(
        setup.world, plan_of(), relay, setup.world.invite(plan_of(), setup.world.release(), NOW, NOW)
    )
    assert sightings(b"".join(messages) + b"".join(reply for _, reply in said.values())) == []


def test_no_canary_comes_out_anywhere(tmp_path: Path) -> None:
    world = World(tmp_path)
    setup = make_setup(tmp_path, world)
    store = setup.store()
    plant_in_audio(tmp_path, store)
    said = plant_in_events(store)
    entries = [f"{entry_object(entry)} {sentence(entry)}" for entry in store.entries()]
    store.close()
    crash_output(setup, Endpoint(tmp_path / "device.sock"), tmp_path / "log")

    log = (tmp_path / "log").read_bytes()
    assert log.count(b"a defect at join [builtins.") == 2
    assert b"stopped by builtins.KeyError" in log
    assert b"stopped by builtins.RuntimeError" in log
    everything = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    everything["the store, decrypted"] = decrypted(tmp_path)
    everything["what was said"] = "\n".join([*said, *entries]).encode()
    assert {name: found for name, data in everything.items() if (found := sightings(data))} == {}


def test_what_the_redactor_knows_of_is_gone_from_a_slot() -> None:
    redactor = Redactor(frozenset({CANARIES[0]}))
    left = redactor.redact(f"call {CANARIES[0]} on {CANARIES[1]}, mail {CANARIES[2]}, drive to {CANARIES[3]}")
    assert left == "call CALL_CONTACT on NUMBER, mail EMAIL, drive to ADDRESS"


def test_a_canary_that_comes_out_would_be_seen(tmp_path: Path) -> None:
    world = World(tmp_path)
    setup = make_setup(tmp_path, world)
    store = setup.store()
    store.rules.labels["wake_word"].add(CANARIES[4])  # type: ignore[attr-defined]
    try:
        store.record("wake_events", [wake(1, wake_word=CANARIES[4])], "quality_metrics", NOW)
    finally:
        store.rules.labels["wake_word"].discard(CANARIES[4])  # type: ignore[attr-defined]
    store.close()
    assert sightings(decrypted(tmp_path)) == [CANARIES[4]]
    assert sightings(encode(world.invite(plan_of(), bytes(16), NOW, NOW))) == []

"""The device's end: wrong clocks, broken connections, and how a device is silent."""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.device import remote
from clients.device.interface import Declined, Reason, Stage
from clients.device.remote import Line, Message, NotAdmitted, Unreachable, attend, line
from fa_core.errors import BadInput
from fa_core.federation.certificates import make_tls
from fa_core.gateway.queue import NewRound
from fa_core.trust.enrolment import Authority
from fa_core.trust.request_signing import MESSAGE, STAGE
from tests.gateway.running_gateway import Gateway, gateway, until

AUTHORITY = Authority.generate()
DEVICE = AUTHORITY.enrol("a fleet")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Gateway]:
    with gateway(tmp_path / "gateway", AUTHORITY) as running:
        yield running


def open_round(here: Gateway, release: str = "ab" * 16) -> int:
    found = here.queue.open(NewRound(release, 1, b"come", 5, time.time() + 600, time.time() + 600))
    assert found is not None
    return found


@pytest.mark.parametrize("ahead", [0.0, 600.0, -600.0, 3e8])
def test_a_wrong_clock_is_corrected_for_timestamps(here: Gateway, ahead: float) -> None:
    theirs = here.line(DEVICE)
    theirs.clock = lambda: time.time() + ahead
    assert theirs.next(0) is None
    open_round(here)
    found = theirs.next(60)
    assert found is not None
    assert theirs.reply(found, b"me")
    theirs.hang_up()


def test_a_device_of_another_authority_is_not_admitted(here: Gateway) -> None:
    with pytest.raises(NotAdmitted):
        here.line(Authority.generate().enrol("a fleet")).next(0)


def test_a_broken_connection_is_opened_again(here: Gateway) -> None:
    theirs = here.line(DEVICE)
    assert theirs.next(0) is None
    assert theirs._connection is not None
    theirs._connection.sock.close()
    with pytest.raises(Unreachable):
        theirs.next(0)
    assert theirs.next(0) is None
    theirs.hang_up()


def test_a_gateway_with_another_certificate_is_not_used(here: Gateway, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    make_tls(tmp_path / "other", "other", "127.0.0.1")
    with pytest.raises(Unreachable):
        line(here.url, DEVICE, tmp_path / "other" / "ca.crt").next(0)


@pytest.mark.parametrize(
    "url", ["http://x", "x:1", "https://", "https://x/path", "https://x?q", "https://x:99999", ""]
)
def test_another_kind_of_address_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match="https://HOST"):
        line(url, DEVICE, None)


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nothing")
    for name in ("ca.crt", "missing.crt"):
        with pytest.raises(BadInput, match="certificate"):
            line("https://x", DEVICE, tmp_path / name)


class Recording:
    """A device that declines, or breaks, or answers."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple[Stage, bytes]] = []

    def handle(self, stage: Stage, request: bytes) -> bytes:
        self.asked.append((stage, request))
        if self.error is not None:
            raise self.error
        return b"reply"


@pytest.mark.parametrize("error", [Declined(Reason.CONSENT), ValueError("a secret")])
def test_a_device_that_declines_disconnects_and_stays_away(
    here: Gateway, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = open_round(here)
    device, stopped, theirs = Recording(error), threading.Event(), here.line(DEVICE)
    aways: list[float] = []
    monkeypatch.setattr(
        stopped, "wait", lambda seconds: aways.append(seconds) or (device.asked and stopped.set())
    )
    attend(device, theirs, stopped)
    assert device.asked == [("join", b"come")]
    assert remote.AWAY_SECONDS <= aways[-1] <= 1.5 * remote.AWAY_SECONDS
    assert theirs._connection is None
    assert here.queue.tally(number, 0).answered == 0
    again = theirs.next(60)
    assert again is not None
    assert again.request == b"come", "the gateway learned that the device declined"
    theirs.hang_up()


def test_a_reply_whose_response_was_lost_is_posted_again(here: Gateway) -> None:
    number = open_round(here)
    theirs = here.line(DEVICE)
    found = theirs.next(60)
    assert found is not None
    assert theirs.reply(found, b"me")
    assert theirs.reply(found, b"me")
    assert not theirs.reply(found, b"another")
    assert not theirs.reply(Message(found.number + 1, "join", b""), b"me")
    assert here.queue.collect(number, 0) == {0: b"me"}
    assert not theirs.reply(found, b"another")
    here.queue.ask(number, 1, {}, b"on", time.time() + 600)
    assert not theirs.reply(found, b"me")
    theirs.hang_up()


def test_a_reply_after_an_idle_timeout_is_posted_on_a_new_connection(here: Gateway) -> None:
    number = open_round(here)
    theirs = here.line(DEVICE)
    found = theirs.next(60)
    assert found is not None
    assert theirs._connection is not None
    theirs._connection.sock.shutdown(socket.SHUT_RDWR)  # as after a gateway's keep-alive timeout
    assert theirs.reply(found, b"me")
    assert here.queue.collect(number, 0) == {0: b"me"}
    theirs.hang_up()
    gone = Line("127.0.0.1:1", theirs.trust, DEVICE)
    with pytest.raises(Unreachable):
        gone.reply(found, b"me")


def test_a_closed_line_does_not_connect_again(here: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device may be stopped at any moment: here, when it is about to connect."""
    theirs, opened = here.line(DEVICE), remote._opened

    def stopped_meanwhile(connection: http.client.HTTPSConnection) -> socket.socket:
        theirs.close()
        return opened(connection)

    monkeypatch.setattr(remote, "_opened", stopped_meanwhile)
    with pytest.raises(Unreachable):
        theirs.next(20)


@pytest.mark.parametrize("sent", [b"", b"half a l"])
def test_a_truncated_message_is_no_message(tmp_path: Path, sent: bytes) -> None:
    """A worker is killed while it answers: the headers announce more than arrives."""
    make_tls(tmp_path, "tests", "127.0.0.1")
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak() -> None:
            with trust.wrap_socket(listening.accept()[0], server_side=True) as talking:
                talking.recv(1 << 16)
                talking.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n")
                talking.sendall(f"{MESSAGE}: 1\r\n{STAGE}: join\r\n\r\n".encode() + sent)

        thread = threading.Thread(target=speak)
        thread.start()
        theirs = line(f"https://127.0.0.1:{listening.getsockname()[1]}", DEVICE, tmp_path / "ca.crt")
        with pytest.raises(Unreachable):
            theirs.next(0)
        thread.join()


ANSWERS = [
    (500, "7", "join"),
    (200, "", "join"),
    (200, "-7", "join"),
    (200, "seven", "join"),
    (200, "\u00b2", "join"),
    (200, "7", ""),
    (200, "7", "other"),
]


@pytest.mark.parametrize("status, number, stage", ANSWERS)
def test_an_answer_that_is_no_message_is_none_from_a_gateway(
    monkeypatch: pytest.MonkeyPatch, status: int, number: str, stage: str
) -> None:
    theirs = Line("127.0.0.1:1", ssl.create_default_context(), DEVICE)
    answer = [(status, {MESSAGE: number, STAGE: stage}, b"request")]
    monkeypatch.setattr(Line, "_ask", lambda *_: answer[0])
    with pytest.raises(Unreachable):
        theirs.next(0)
    answer[0] = (200, {MESSAGE: "7", STAGE: "join"}, b"request")
    assert theirs.next(0) == Message(7, "join", b"request")


def test_a_waiting_device_is_notified_of_a_new_round(here: Gateway) -> None:
    device, stopped, theirs = Recording(), threading.Event(), here.line(DEVICE)
    thread = threading.Thread(target=attend, args=(device, theirs, stopped))
    thread.start()
    until(lambda: here.queue.statuses(0.0) == [] and theirs._connection is not None)
    number = open_round(here)
    until(lambda: here.queue.tally(number, 0).answered == 1)
    stopped.set()
    theirs.close()
    thread.join()
    assert device.asked == [("join", b"come")]

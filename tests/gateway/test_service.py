"""What the gateway refuses over HTTPS, and that refusals of one kind are one answer."""

import http.client
import json
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fa_core.gateway import long_poll, service
from fa_core.gateway.counters import exposition
from fa_core.gateway.queue import NewRound
from fa_core.gateway.settings import LimitsSection
from fa_core.secagg import DeviceIdentity
from fa_core.trust.enrolment import Authority
from fa_core.trust.request_signing import MESSAGE, Credentials, Request, authorization, digest_of
from tests.gateway.running_gateway import Gateway, gateway, until

AUTHORITY = Authority.generate()
DEVICE, OTHER = AUTHORITY.enrol("a fleet"), AUTHORITY.enrol("a fleet")
UNKNOWN = Authority.generate().enrol("a fleet")
NEXT = "/v1/letters?wait=0"
LIMITS = LimitsSection(reply_bytes=2048, requests_a_second=1e-6, burst=200.0)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("service") / "gateway", AUTHORITY, limits=LIMITS) as running:
        yield running


@pytest.fixture
def message(here: Gateway) -> int:
    """A round with a slot for DEVICE; return the number of its invitation."""
    release = time.monotonic_ns().to_bytes(16, "big").hex()
    here.queue.open(NewRound(release, 1, b"invitation", 1, time.time() + 600, time.time() + 600))
    status, headers, body = ask(here, DEVICE, "/v1/letters?wait=60")
    assert (status, body) == (200, b"invitation")
    return int(headers[MESSAGE])


Answer = tuple[int, dict[str, str], bytes]


def now() -> int:
    """The time as a timestamp, which rises even where the clock goes back."""
    _timestamps.append(max(_timestamps[-1] + 1, int(time.time() * 1_000_000)))
    return _timestamps[-1]


_timestamps = [0]


def connect(here: Gateway) -> http.client.HTTPSConnection:
    trust = ssl.create_default_context(cafile=str(here.home.folder / "ca.crt"))
    return http.client.HTTPSConnection(here.home.settings.name, context=trust, timeout=60)


def exchange(here: Gateway, method: str, target: str, body: bytes, headers: dict[str, str]) -> Answer:
    connection = connect(here)
    try:
        connection.request(method, target, body or None, headers)
        response = connection.getresponse()
        return response.status, {key.title(): value for key, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def sign(
    here: Gateway,
    who: DeviceIdentity,
    method: str,
    target: str,
    body: bytes = b"",
    timestamp: int | None = None,
    audience: str = "",
) -> dict[str, str]:
    request = Request(method, target, digest_of(body))
    name = audience or here.home.settings.name
    return {"Authorization": authorization(who, name, request, now() if timestamp is None else timestamp)}


def ask(here: Gateway, who: DeviceIdentity, target: str = NEXT) -> Answer:
    return exchange(here, "GET", target, b"", sign(here, who, "GET", target))


def put(here: Gateway, who: DeviceIdentity, number: int, body: bytes) -> Answer:
    target = f"/v1/letters/{number}"
    return exchange(here, "PUT", target, body, sign(here, who, "PUT", target, body))


def undated(answer: Answer) -> Answer:
    """An answer without its date."""
    status, headers, body = answer
    return status, {key: value for key, value in headers.items() if key != "Date"}, body


def test_every_unauthenticated_request_gets_the_same_answer(here: Gateway, message: int) -> None:
    used = sign(here, DEVICE, "GET", NEXT)
    assert exchange(here, "GET", NEXT, b"", used)[0] == 204 or message
    target = f"/v1/letters/{message}"
    stolen = sign(here, DeviceIdentity(UNKNOWN.key, DEVICE.certificate), "GET", NEXT)
    refused = {
        "nobody": exchange(here, "GET", NEXT, b"", {}),
        "nonsense": exchange(here, "GET", NEXT, b"", {"Authorization": "Unheard me"}),
        "another authority's": ask(here, UNKNOWN),
        "another's certificate": exchange(here, "GET", NEXT, b"", stolen),
        "used before": exchange(here, "GET", NEXT, b"", used),
        "long ago": exchange(
            here, "GET", NEXT, b"", sign(here, OTHER, "GET", NEXT, timestamp=now() - 400_000_000)
        ),
        "not yet": exchange(
            here, "GET", NEXT, b"", sign(here, OTHER, "GET", NEXT, timestamp=now() + 400_000_000)
        ),
        "for another gateway": exchange(
            here, "GET", NEXT, b"", sign(here, DEVICE, "GET", NEXT, audience="x:1")
        ),
        "for another target": exchange(here, "GET", NEXT + "1", b"", sign(here, DEVICE, "GET", NEXT)),
        "another body": exchange(
            here, "PUT", target, b"changed", sign(here, DEVICE, "PUT", target, b"signed")
        ),
        "no such route's owner": exchange(here, "PUT", target, b"x", {}),
    }
    first = undated(refused["nobody"])
    assert first[0] == 401
    assert {name: undated(answer) for name, answer in refused.items()} == dict.fromkeys(refused, first)


def test_every_rejected_reply_gets_the_same_answer(here: Gateway, message: int) -> None:
    refused = {
        "another device's": put(here, OTHER, message, b"stolen slot"),
        "no message": put(here, DEVICE, message + 1000, b"x"),
        "empty": put(here, DEVICE, message, b""),
        "of no number": put(here, DEVICE, 1 << 62, b"x"),
    }
    assert undated(put(here, DEVICE, message, b"mine"))[0] == 204
    refused["a second reply"] = put(here, DEVICE, message, b"changed")
    assert put(here, DEVICE, message, b"mine")[0] == 204  # the same once more: a response may be lost
    first = undated(refused["no message"])
    assert first[0] == 409
    assert {name: undated(answer) for name, answer in refused.items()} == dict.fromkeys(refused, first)


def test_a_reply_may_not_be_replayed_byte_for_byte(here: Gateway, message: int) -> None:
    target, body = f"/v1/letters/{message}", b"mine"
    headers = sign(here, DEVICE, "PUT", target, body)
    assert exchange(here, "PUT", target, body, headers)[0] == 204
    assert exchange(here, "PUT", target, body, headers)[0] == 401


@pytest.mark.parametrize(
    "target",
    [
        "/v1/letters?wait=-1",
        "/v1/letters?wait=abc",
        "/v1/letters?wait=1e9",
        "/v1/letters?wait=x",
    ],
)
def test_a_malformed_request_is_not_repeated_back(here: Gateway, target: str) -> None:
    assert ask(here, DEVICE, target)[::2] == (400, b"")


def test_nothing_else_is_served(here: Gateway) -> None:
    for target in ("/", "/docs", "/openapi.json", "/metrics", "/v1"):
        assert exchange(here, "GET", target, b"", {})[0] == 404
    assert exchange(here, "POST", "/v1/letters", b"x", {})[0] == 405


def test_a_large_body_is_refused_declared_or_not(here: Gateway, message: int) -> None:
    large = bytes(2049)
    assert put(here, DEVICE, message, large)[0] == 413
    target = f"/v1/letters/{message}"
    connection = connect(here)
    headers = sign(here, DEVICE, "PUT", target, large)
    connection.request("PUT", target, iter([large[:1000], large[1000:]]), headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()
    assert put(here, DEVICE, message, bytes(2048))[0] == 204


def test_a_slow_body_is_not_waited_for(tmp_path: Path) -> None:
    limits, target = LimitsSection(body_seconds=0.3), "/v1/letters/1"
    with gateway(tmp_path / "gateway", AUTHORITY, limits=limits) as here:
        connection = connect(here)
        connection.putrequest("PUT", target)
        for name, value in sign(here, DEVICE, "PUT", target, b"slow").items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", "4")
        connection.endheaders(b"sl")
        assert connection.getresponse().status == 408
        connection.close()


def test_a_slow_or_large_head_ends_the_connection(here: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_poll, "HEAD_SECONDS", 0.2)
    for head in (b"", b"GET /health HTTP/1.1\r\nHost: x\r\n", b"GET /health HTTP/1.1\r\nX: " + bytes(20_000)):
        raw = socket.create_connection(("127.0.0.1", int(here.home.settings.name.rpartition(":")[2])))
        trust = ssl.create_default_context(cafile=str(here.home.folder / "ca.crt"))
        with trust.wrap_socket(raw, server_hostname="127.0.0.1") as talking:
            talking.settimeout(60)
            try:
                talking.sendall(head)
                ended = b"200" not in talking.recv(4096)
            except (ConnectionError, ssl.SSLError):
                ended = True
            assert ended
    monkeypatch.undo()
    assert exchange(here, "GET", "/health", b"", {})[0] == 200


def test_a_device_that_polls_too_often_gets_429_and_a_retry_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FAILURES_A_SECOND", 1e-6)  # however long this takes here
    limits = LimitsSection(requests_a_second=1e-6, burst=3.0)
    with gateway(tmp_path / "gateway", AUTHORITY, limits=limits) as here:
        answers = [ask(here, DEVICE) for _ in range(5)]
        assert [answer[0] for answer in answers] == [204, 204, 204, 429, 429]
        assert answers[-1][1]["Retry-After"] == "5"
        assert ask(here, OTHER)[0] == 204
        unknown = [ask(here, UNKNOWN)[0] for _ in range(40)]
        assert unknown == [401] * 30 + [429] * 10


def answers_behind_one_address(here: Gateway) -> tuple[list[int], int]:
    """Send 40 requests without credentials, then one of an admitted device, all from one address."""
    unknown = [exchange(here, "GET", NEXT, b"", {})[0] for _ in range(40)]
    return unknown, ask(here, DEVICE)[0]


def test_requests_without_credentials_do_not_shut_out_a_device_behind_the_same_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 9 of the privacy review."""
    monkeypatch.setattr(service, "FAILURES_A_SECOND", 1e-6)
    with gateway(tmp_path / "gateway", AUTHORITY) as here:
        assert answers_behind_one_address(here) == ([401] * 30 + [429] * 10, 204)


def test_control_a_limit_before_the_credentials_shuts_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FAILURES_A_SECOND", 1e-6)
    admit = service._WorkerState.admit

    def limit_first(self: service._WorkerState, request: service.Request) -> Credentials:
        if not self.unauthenticated.allows(request.client.host if request.client else ""):
            raise service._Ended(429)
        return admit(self, request)

    monkeypatch.setattr(service._WorkerState, "admit", limit_first)
    with gateway(tmp_path / "gateway", AUTHORITY) as here:
        assert answers_behind_one_address(here)[1] == 429


def test_health_and_readiness_say_nothing_more(here: Gateway) -> None:
    for target in ("/health", "/ready"):
        status, _, body = exchange(here, "GET", target, b"", {})
        assert (status, json.loads(body)) == (200, {"status": "ok"})


def test_without_its_database_it_is_alive_and_not_ready(tmp_path: Path) -> None:
    with gateway(tmp_path / "gateway", AUTHORITY) as here:
        with here.queue._database.writing() as connection:
            connection.exec_driver_sql("ALTER TABLE gateway_rounds RENAME TO hidden")
        assert exchange(here, "GET", "/health", b"", {})[0] == 200
        assert exchange(here, "GET", "/ready", b"", {})[0] == 503
        assert ask(here, DEVICE)[0] == 503


def test_metrics_count_the_service_and_name_no_device(here: Gateway, message: int) -> None:
    put(here, DEVICE, message, b"mine")
    here.home.counts.mkdir(exist_ok=True)
    until(lambda: 'method="PUT"' in exposition(here.home.counts))
    text = exposition(here.home.counts)
    assert 'unheard_gateway_requests_total{code="200",method="GET"}' in text
    for device in (DEVICE, OTHER, UNKNOWN):
        assert device.device.hex()[:12] not in text
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    assert all(name.startswith("unheard_gateway_") for name in names)


def test_logs_and_metrics_hold_no_canary(
    here: Gateway, message: int, caplog: pytest.LogCaptureFixture
) -> None:
    """What a device sends, who it is, and what it signs appear nowhere; in the broken control they do."""
    canary = b"CANARY-5f2c-of-a-device"
    with caplog.at_level(logging.DEBUG):
        put(here, DEVICE, message, canary)
        put(here, OTHER, message, canary)
        exchange(here, "GET", f"/v1/letters?wait={canary.decode()}", b"", sign(here, DEVICE, "GET", NEXT))
        exchange(here, "GET", f"/{canary.decode()}", b"", {"Authorization": canary.decode()})
        logging.getLogger("control").warning("said %s", canary.decode())
    from fa_core.gateway.logs import JsonLines

    lines = [JsonLines("gateway").format(record) for record in caplog.records]
    said = "\n".join(lines) + exposition(here.home.counts)
    for secret in (canary.decode(), DEVICE.device.hex(), DEVICE.certificate.hex(), "Authorization"):
        assert secret not in said
    assert any(canary.decode() in record.getMessage() for record in caplog.records)  # the control

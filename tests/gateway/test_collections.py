"""A collection at a gateway: what devices are refused over HTTPS, and what the leader's relay is."""

import json
import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from clients.gateway import collect
from fa_core.collection.task import Task
from fa_core.errors import UnheardError
from fa_core.flower.transport import NodeMessage, pull, push
from fa_core.gateway import service
from fa_core.gateway.counters import UPLOADS, Counters, exposition
from fa_core.gateway.drain import Drain
from fa_core.gateway.logs import JsonLines
from fa_core.gateway.settings import LimitsSection
from fa_core.gateway.uploads import Uploads
from fa_core.secagg import DeviceIdentity
from fa_core.trust.enrolment import Authority
from fa_core.wire import invitation
from fa_core.wire.bundle import Bundle, Unreadable
from tests.gateway.offered import CLOSES, asked, invited, report_of, task_of, withdrawal_of
from tests.gateway.running_gateway import Gateway, gateway, until
from tests.gateway.test_service import Answer, exchange, sign, undated

AUTHORITY = Authority.generate()
DEVICE, OTHER = AUTHORITY.enrol("a fleet"), AUTHORITY.enrol("a fleet")
UNKNOWN = Authority.generate().enrol("a fleet")
LIMITS = LimitsSection(
    reply_bytes=2048, requests_a_second=1e-6, burst=1000.0, collections=500, collection_bytes=4096
)
LIST = "/v1/collections"
NUMBERS = count(1)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("collections") / "gateway", AUTHORITY, limits=LIMITS) as running:
        yield running


@pytest.fixture
def task(here: Gateway) -> Task:
    """Return the task of a collection that is open."""
    made = task_of(next(NUMBERS))
    assert drained(here, made) == {}
    return made


def drained(here: Gateway, task: Task, ack: int = 0, **changes: Any) -> dict[int, bytes]:
    """Return what a relay is handed over the socket."""
    path = here.home.folder / here.home.settings.relay.socket
    return collect({"gateway": str(path)}, asked(task, ack, **changes))


def address(task: Task) -> str:
    return f"{LIST}/{task.id.hex()}"


def get(here: Gateway, target: str, who: DeviceIdentity = DEVICE) -> Answer:
    return exchange(here, "GET", target, b"", sign(here, who, "GET", target))


def post(here: Gateway, target: str, body: bytes, who: DeviceIdentity = DEVICE) -> int:
    return exchange(here, "POST", target, body, sign(here, who, "POST", target, body))[0]


def test_a_report_comes_from_the_device_to_the_leader(here: Gateway, task: Task) -> None:
    body = report_of(DEVICE.device)
    listed = json.loads(get(here, LIST)[2])["collections"]
    assert {"task": task.id.hex(), "closes": CLOSES} in listed
    assert get(here, address(task))[::2] == (200, invited(task))
    assert post(here, address(task), body) == 204
    assert post(here, address(task), body) == 204
    assert drained(here, task) == drained(here, task) == {1: body}
    assert drained(here, task, ack=1) == {}
    assert post(here, address(task), body) == 204
    assert drained(here, task) == {}


def test_a_withdrawal_is_handed_over_in_place_of_what_waits(here: Gateway, task: Task) -> None:
    back = withdrawal_of(DEVICE.device, task)
    assert post(here, address(task), report_of(DEVICE.device)) == 204
    assert post(here, address(task), back) == 204
    assert drained(here, task) == {2: back}


def test_credentials_are_those_of_every_other_request(here: Gateway, task: Task) -> None:
    body, target = report_of(DEVICE.device), address(task)
    stolen = DeviceIdentity(UNKNOWN.key, DEVICE.certificate)
    refused = {
        "nobody": exchange(here, "POST", target, body, {})[0],
        "another authority's": post(here, target, report_of(UNKNOWN.device), UNKNOWN),
        "another's certificate": post(here, target, body, stolen),
        "another body": exchange(here, "POST", target, body, sign(here, DEVICE, "POST", target, b"x"))[0],
        "another method": exchange(here, "POST", target, body, sign(here, DEVICE, "PUT", target, body))[0],
        "a list for nobody": exchange(here, "GET", LIST, b"", {})[0],
        "an invitation for nobody": exchange(here, "GET", target, b"", {})[0],
    }
    assert refused == dict.fromkeys(refused, 401)
    assert drained(here, task) == {}
    signed = sign(here, DEVICE, "POST", target, body)  # no timestamp is spent: who repeats it changes nothing
    assert [exchange(here, "POST", target, body, signed)[0] for _ in range(2)] == [204, 204]
    assert drained(here, task) == {1: body}


def test_what_is_no_upload_of_this_device_gets_one_answer(here: Gateway, task: Task) -> None:
    target, other = address(task), task_of(next(NUMBERS))
    assert post(here, target, report_of(DEVICE.device)) == 204
    refused = {
        "another device's": report_of(OTHER.device),
        "another's withdrawal": withdrawal_of(OTHER.device, task),
        "of another collection": withdrawal_of(DEVICE.device, other),
        "a second one": report_of(DEVICE.device),
        "too short": report_of(DEVICE.device)[:47],
        "nothing": b"",
    }
    answers = {
        name: undated(exchange(here, "POST", target, body, sign(here, DEVICE, "POST", target, body)))
        for name, body in refused.items()
    }
    assert answers == dict.fromkeys(refused, answers["nothing"])
    assert answers["nothing"][0] == 409
    assert len(drained(here, task)) == 1


def test_no_such_collection_is_404_and_another_method_405(here: Gateway) -> None:
    body = report_of(DEVICE.device)
    over = task_of(next(NUMBERS), CLOSES - 2 * 86_400)
    assert drained(here, over) == {}
    names = [over.id.hex(), "00" * 32, "AB" * 32, "00" * 31, "00" * 33, "x"]
    for target in (f"{LIST}/{name}" for name in names):
        assert (get(here, target)[0], post(here, target, body)) == (404, 404)
    assert over.id.hex() not in get(here, LIST)[2].decode()
    assert exchange(here, "PUT", f"{LIST}/{'00' * 32}", body, {})[0] == 405


def test_large_and_full(here: Gateway, task: Task) -> None:
    third = AUTHORITY.enrol("a fleet")
    assert post(here, address(task), report_of(DEVICE.device, 2049)) == 413
    assert post(here, address(task), report_of(DEVICE.device, 2048)) == 204
    assert post(here, address(task), report_of(OTHER.device, 2048), OTHER) == 204
    assert post(here, address(task), report_of(third.device, 60), third) == 503
    drained(here, task)
    drained(here, task, ack=1)
    assert post(here, address(task), report_of(third.device, 60), third) == 204


def test_without_its_database_a_device_may_come_again(here: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise UnheardError("away")

    for name in ("offered", "invitation", "take"):
        monkeypatch.setattr(Uploads, name, away)
    target = f"{LIST}/{'00' * 32}"
    assert get(here, LIST)[0] == get(here, target)[0] == post(here, target, report_of(DEVICE.device)) == 503


def test_counts_are_of_kinds_and_not_of_devices(here: Gateway, task: Task, tmp_path: Path) -> None:
    post(here, address(task), report_of(DEVICE.device))
    post(here, address(task), withdrawal_of(OTHER.device, task), OTHER)
    drained(here, task)
    here.counters.write(tmp_path)
    until(lambda: f'{UPLOADS}{{kind="withdrawal",outcome="taken"}}' in exposition(here.home.counts))
    said = exposition(here.home.counts) + exposition(tmp_path)
    for kind in ("report", "withdrawal"):
        assert f'{UPLOADS}{{kind="{kind}",outcome="handed_over"}}' in said
    assert 'method="POST"' in said
    assert DEVICE.device.hex() not in said


# What others learn of a device.


def learned_by_another(here: Gateway, task: Task) -> bytes:
    """Return everything that OTHER is answered after DEVICE has uploaded."""
    post(here, address(task), b"CANARY-of-a-dev." + DEVICE.device + b"CANARY-of-a-dev." * 20)
    answers = [get(here, target, OTHER) for target in (LIST, address(task))]
    answers += [
        exchange(here, "POST", address(task), body, sign(here, OTHER, "POST", address(task), body))
        for body in (report_of(DEVICE.device), report_of(OTHER.device))
    ]
    return b"".join(repr(headers).encode() + body for _, headers, body in answers)


def test_a_device_learns_nothing_of_another(here: Gateway, task: Task) -> None:
    said = learned_by_another(here, task)
    assert b"CANARY" not in said
    assert DEVICE.device not in said
    assert DEVICE.device.hex().encode() not in said


def test_control_a_gateway_that_shows_uploads_is_found(
    here: Gateway, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shown(self: Uploads, task: bytes, now: float) -> bytes | None:
        handed = self.hand_over(task, 0)
        return None if handed is None else b"".join(handed.items.values())

    monkeypatch.setattr(Uploads, "invitation", shown)
    assert b"CANARY" in learned_by_another(here, task)


def logged(here: Gateway, task: Task, caplog: pytest.LogCaptureFixture) -> str:
    """Return the gateway's log of an upload, refusals, a withdrawal and what is handed over."""
    with caplog.at_level(logging.DEBUG):
        post(here, address(task), report_of(DEVICE.device))
        post(here, address(task), report_of(OTHER.device))
        post(here, address(task), withdrawal_of(DEVICE.device, task))
        drained(here, task)
        with pytest.raises(Unreadable):
            drained(here, task, ack=77)
    return "\n".join(JsonLines("gateway").format(record) for record in caplog.records)


def test_a_log_names_no_device(here: Gateway, task: Task, caplog: pytest.LogCaptureFixture) -> None:
    said = logged(here, task, caplog)
    assert "uploads were handed over" in said
    for device in (DEVICE, OTHER):
        assert device.device.hex()[:16] not in said
        assert device.certificate.hex()[:16] not in said


def test_control_a_gateway_that_logs_who_uploads_is_found(
    here: Gateway, task: Task, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Uploads.take

    def logging_take(self: Uploads, *arguments: Any) -> Any:
        service.logger.info("an upload", extra={"node": arguments[1][0].device.hex()})
        return take(self, *arguments)

    monkeypatch.setattr(Uploads, "take", logging_take)
    assert DEVICE.device.hex() in logged(here, task, caplog)


# The leader's relay.


def test_a_message_over_flower_takes_what_waits(here: Gateway, task: Task) -> None:
    body, release = report_of(DEVICE.device), task.release.hex()
    grid = here.grid()
    post(here, address(task), body)
    for ack, waiting in ((0, {1: body}), (1, {})):
        parts = {0: ack.to_bytes(8, "big")}
        sent = push(grid, NodeMessage(1, "report", release, parts, invited(task)), 60.0)
        assert sent is not None
        ((_, answer),) = pull(grid, {sent: 1}, "report", release)
        assert answer is not None
        assert answer.parts == waiting


def test_the_newest_invitation_is_offered(here: Gateway, task: Task) -> None:
    for size, offered in ((9, 9), (8, 9), (10, 10), (7, 10)):
        drained(here, task, size=size)
        assert get(here, address(task))[2] == invited(task, offered)


def test_a_message_that_is_none_is_refused(here: Gateway) -> None:
    task = task_of(next(NUMBERS))
    good, other = asked(task), task_of(next(NUMBERS))
    refused: dict[str, Bundle] = {
        "nothing": replace(good, everyone=b""),
        "of another release": replace(good, release=other.release.hex()),
        "no ack": replace(good, parts={}),
        "a short ack": replace(good, parts={0: bytes(7)}),
        "two parts": replace(good, parts={0: bytes(8), 1: bytes(8)}),
        "another slot": replace(good, parts={1: bytes(8)}),
        "an ack of what was never handed over": asked(task, ack=1),
        "a log beyond every number": asked(task, size=1 << 63),
    }
    path = here.home.folder / here.home.settings.relay.socket
    for name, message in refused.items():
        with pytest.raises(Unreadable):
            assert collect({"gateway": str(path)}, message) is None, name
    assert drained(here, task) == {}


def changed(chance: random.Random, data: bytes) -> bytes:
    """Return bytes with one bit or one piece changed."""
    made, at = bytearray(data), chance.randrange(len(data))
    if chance.random() < 0.5:
        made[at] ^= 1 << chance.randrange(8)
    else:
        made[at : at + chance.randrange(40)] = chance.randbytes(chance.randrange(40))
    return bytes(made)


def test_a_changed_invitation_opens_no_other_collection(here: Gateway) -> None:
    """800 invitations, half of them changed before they were compressed. What is no task's is for devices."""
    chance, task = random.Random(7), task_of(next(NUMBERS))
    drain, before = Drain(here.uploads, 500, Counters()), here.uploads.offered(0.0)
    whole = invited(task)
    fields = invitation.unpack(whole)
    answers = []
    for number in range(800):
        sent = changed(chance, whole) if number % 2 else invitation.pack(changed(chance, fields))
        answers.append(drain.hand_over(replace(asked(task), everyone=sent)))
    assert {each[0] for each in here.uploads.offered(0.0)} - {each[0] for each in before} <= {task.id}
    assert answers.count(None) > 400


def test_bodies_of_any_kind_are_taken_as_bytes_or_refused(here: Gateway, task: Task) -> None:
    """What comes in is handed over as it came, or was refused: nothing is parsed beyond the device."""
    chance = random.Random(8)
    for number in range(40):
        body = chance.randbytes(chance.choice([0, 1, 47, 48, 239, 240, 241, 2048]))
        if number % 2:
            body = body[:16] + DEVICE.device + body[48:]
        assert post(here, address(task), body) in (204, 409)
    assert len(drained(here, task)) == 1


def test_one_collection_too_many_is_refused(here: Gateway) -> None:
    full = Drain(here.uploads, len(here.uploads.offered(0.0)), Counters())
    assert full.hand_over(asked(task_of(next(NUMBERS)))) is None

"""What waits at a gateway: an upload is taken once, and handed over until it is acknowledged."""

import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from fa_core.database.connection import Database
from fa_core.gateway import uploads
from fa_core.gateway.schema import collections
from fa_core.gateway.uploads import KEPT_SECONDS, Invited, Taken, Upload, Uploads
from tests.collection.test_faults import Killed, killer
from tests.gateway.offered import report_of, task_of, withdrawal_of
from tests.gateway.running_gateway import queue_of, until

CLOSES, NOW, PLENTY = 1000, 500.0, 1 << 40
TASK = task_of(1)
DEVICES = [bytes([number]) * 32 for number in range(1, 9)]
INVITED = Invited(TASK.id, CLOSES, 7, b"come")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a database of this module, on either kind."""
    if request.param == "sqlite":
        return str(tmp_path_factory.mktemp("uploads") / "gateway.db")
    make: Callable[[], str] = request.getfixturevalue("new_database")
    return make()


@pytest.fixture(scope="module")
def connected(where: str) -> Iterator[Database]:
    found = queue_of(where)[1]
    yield found
    found.close()


@pytest.fixture
def here(connected: Database) -> Uploads:
    """Return the uploads of a database in which there is nothing but an open collection."""
    with connected.writing() as connection:
        connection.execute(collections.delete())
    made = Uploads(connected)
    assert made.refresh(INVITED, 1)
    return made


def take(here: Uploads, body: bytes, most: int = PLENTY, now: float = NOW, task: bytes = TASK.id) -> Taken:
    upload = Upload.read(task, body)
    assert upload is not None
    (taken,) = here.take(task, [upload], now, most)
    return taken


def handed(here: Uploads, ack: int = 0) -> dict[int, bytes]:
    found = here.hand_over(TASK.id, ack)
    assert found is not None
    return found.items


def test_what_is_handed_over_waits_until_it_is_acknowledged(here: Uploads) -> None:
    first, second, third = (report_of(device) for device in DEVICES[:3])
    assert handed(here) == {}
    assert take(here, first) is take(here, second) is Taken.ACCEPTED
    assert handed(here) == handed(here) == {1: first, 2: second}
    assert take(here, third) is Taken.ACCEPTED
    assert handed(here, 1) == {2: second, 3: third}
    assert handed(here) == {2: second, 3: third}  # a leader that restarts begins anew
    assert handed(here, 3) == handed(here) == {}


def test_acknowledged_bodies_are_deleted(here: Uploads, connected: Database) -> None:
    for device in DEVICES:
        take(here, report_of(device))
    handed(here)
    handed(here, 5)
    with connected.reading() as connection:
        rows = connection.execute(uploads.uploads.select().order_by(uploads.uploads.c.serial)).all()
        assert [row.body is None for row in rows] == [True] * 5 + [False] * 3
        assert connection.execute(collections.select()).one().waiting == 3 * 400


@pytest.mark.parametrize("ack", [3, 1 << 40, (1 << 64) - 1])
def test_more_than_was_handed_over_is_not_acknowledged(here: Uploads, ack: int) -> None:
    """As by a leader whose gateway's database was restored: nothing is deleted that nobody has."""
    bodies = [report_of(device) for device in DEVICES[:3]]
    for body in bodies[:2]:
        take(here, body)
    handed(here)
    take(here, bodies[2])
    assert here.hand_over(TASK.id, ack) is None
    assert list(handed(here).values()) == bodies


def test_a_device_has_one_report(here: Uploads) -> None:
    body = report_of(DEVICES[0])
    assert take(here, body) is Taken.ACCEPTED
    for ack in (0, 1):
        assert take(here, body) is Taken.DUPLICATE
        assert take(here, report_of(DEVICES[0])) is Taken.REJECTED
        assert list(handed(here, ack)) == [1][ack:]
    assert take(here, body) is Taken.DUPLICATE
    assert handed(here) == {}  # what was acknowledged and comes again is not handed over again


def test_a_withdrawal_deletes_the_report_that_waits(here: Uploads) -> None:
    body, back, other = report_of(DEVICES[0]), withdrawal_of(DEVICES[0], TASK), report_of(DEVICES[1])
    assert take(here, body) is take(here, other) is take(here, back) is Taken.ACCEPTED
    assert handed(here) == {2: other, 3: back}
    assert take(here, body) is take(here, back) is Taken.DUPLICATE
    assert take(here, withdrawal_of(DEVICES[0], TASK)) is Taken.REJECTED
    assert handed(here, 3) == {}


def test_what_was_taken_back_takes_no_room(here: Uploads, connected: Database) -> None:
    backs = [withdrawal_of(device, TASK) for device in DEVICES[:2]]
    take(here, report_of(DEVICES[0]))
    take(here, backs[0])
    sent = [Upload.read(TASK.id, body) for body in (report_of(DEVICES[1]), backs[1])]
    assert here.take(TASK.id, [each for each in sent if each], NOW, PLENTY) == [Taken.ACCEPTED] * 2
    with connected.reading() as connection:
        assert connection.execute(collections.select()).one().waiting == sum(map(len, backs))
    assert list(handed(here).values()) == backs


def test_a_withdrawal_follows_a_report_that_the_leader_has(here: Uploads) -> None:
    body, back = report_of(DEVICES[0]), withdrawal_of(DEVICES[0], TASK)
    take(here, body)
    assert handed(here) == {1: body}
    assert take(here, back) is Taken.ACCEPTED
    assert handed(here, 1) == {2: back}


def test_a_report_does_not_follow_its_withdrawal(here: Uploads) -> None:
    back = withdrawal_of(DEVICES[0], TASK)
    assert take(here, back) is Taken.ACCEPTED
    assert take(here, report_of(DEVICES[0])) is Taken.REJECTED
    assert handed(here) == {1: back}


@pytest.mark.parametrize("seed", range(6))
def test_many_at_once_are_taken_as_one_after_the_other(here: Uploads, connected: Database, seed: int) -> None:
    chance = random.Random(seed)
    known = [report_of(each) for each in DEVICES[:3]] + [withdrawal_of(each, TASK) for each in DEVICES[:3]]
    bodies = [*known, *(report_of(each) for each in DEVICES[:3]), *chance.choices(known, k=6)]
    chance.shuffle(bodies)
    taken, left = [], []
    for size in (len(bodies), 5, 1):
        with connected.writing() as connection:
            connection.execute(collections.delete())
        assert here.refresh(INVITED, 1)
        sent = [upload for body in bodies if (upload := Upload.read(TASK.id, body)) is not None]
        groups = [sent[start : start + size] for start in range(0, len(sent), size)]
        taken.append([one for group in groups for one in here.take(TASK.id, group, NOW, 1300)])
        with connected.reading() as connection:
            rows = connection.execute(uploads.uploads.select().order_by(uploads.uploads.c.serial)).all()
            left.append((rows, connection.execute(collections.select()).one()))
    assert taken[0] == taken[1] == taken[2]
    assert left[0] == left[1] == left[2]
    assert {Taken.ACCEPTED, Taken.REJECTED, Taken.DUPLICATE} <= set(taken[0])


def test_a_collection_ends(here: Uploads) -> None:
    body = report_of(DEVICES[0])
    take(here, body)
    assert here.offered(CLOSES - 1) == [(TASK.id, CLOSES)]
    assert here.invitation(TASK.id, CLOSES - 1) == b"come"
    assert here.offered(CLOSES) == []
    assert here.invitation(TASK.id, CLOSES) is None
    assert take(here, report_of(DEVICES[1]), now=CLOSES) is Taken.OVER
    assert take(here, report_of(DEVICES[1]), task=bytes(32)) is Taken.OVER
    assert here.hand_over(bytes(32), 0) is None
    assert handed(here) == {1: body}
    assert here.sweep(CLOSES + KEPT_SECONDS) == 0
    assert here.sweep(CLOSES + KEPT_SECONDS + 1) == 1
    assert here.hand_over(TASK.id, 0) is None


def test_a_swept_collection_leaves_nothing(here: Uploads, connected: Database) -> None:
    take(here, report_of(DEVICES[0]))
    here.sweep(CLOSES + KEPT_SECONDS + 1)
    with connected.reading() as connection:
        for table in (collections, uploads.invitations, uploads.uploads):
            assert connection.execute(table.select()).all() == []


def test_the_newest_invitation_is_kept(here: Uploads) -> None:
    for size, invitation in ((6, b"older"), (9, b"newer"), (8, b"between")):
        here.refresh(Invited(TASK.id, CLOSES, size, invitation), 1)
    assert here.invitation(TASK.id, NOW) == b"newer"


def test_collections_and_the_bytes_of_each_are_bounded(here: Uploads) -> None:
    other = Invited(task_of(2).id, CLOSES + 1, 7, b"another")
    assert not here.refresh(other, 1)
    assert here.refresh(INVITED, 1)
    assert here.refresh(other, 2)
    assert here.offered(NOW) == [(TASK.id, CLOSES), (other.task, CLOSES + 1)]
    bodies = [report_of(device) for device in DEVICES[:4]]
    assert [take(here, body, 800) for body in bodies[:3]] == [Taken.ACCEPTED, Taken.ACCEPTED, Taken.FULL]
    assert take(here, report_of(DEVICES[2]), 800, task=other.task) is Taken.ACCEPTED
    handed(here)
    handed(here, 1)
    assert take(here, bodies[2], 800) is Taken.ACCEPTED
    assert take(here, bodies[3], 800) is Taken.FULL


def test_one_reply_is_bounded(here: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_UPLOADS", 3)
    monkeypatch.setattr(uploads, "MOST_BYTES", 1000)
    lengths = [400, 400, 400, 2000, 100, 100, 100, 100]
    bodies = [report_of(device, length) for device, length in zip(DEVICES, lengths, strict=True)]
    for body in bodies:
        take(here, body)
    replies, ack = [], 0
    while found := handed(here, ack):
        replies.append(list(found.values()))
        ack = max(found)
    assert replies == [bodies[:2], bodies[2:3], bodies[3:4], bodies[4:7], bodies[7:]]


def test_what_is_no_upload_of_this_collection_is_none() -> None:
    assert Upload.read(TASK.id, bytes(47)) is Upload.read(TASK.id, b"") is None
    assert Upload.read(bytes(32), withdrawal_of(DEVICES[0], TASK)) is None


# Several at once.


def test_an_upload_that_commits_late_gets_no_serial_that_was_passed(
    here: Uploads, connected: Database
) -> None:
    """One worker is held at its commit; another takes an upload, and the leader fetches and acknowledges."""
    held, go, blocked = threading.Event(), threading.Event(), threading.Event()
    outcomes: list[Taken] = []
    got: list[bytes] = []

    def hold(_: object) -> None:
        if threading.current_thread() is late:
            held.set()
            go.wait()

    def fetch() -> None:
        ack = 0
        while found := handed(here, ack):
            got.extend(found.values())
            ack = max(found)

    def second() -> None:
        outcomes.append(take(here, report_of(DEVICES[1])))
        fetch()
        blocked.set()

    late = threading.Thread(target=lambda: outcomes.append(take(here, report_of(DEVICES[0]))))
    other = threading.Thread(target=second)
    event.listen(Engine, "commit", hold)
    late.start()
    held.wait()
    other.start()
    if "postgresql" in connected.name:
        until(lambda: blocked.is_set() or _waiting_for_locks(connected))
    go.set()
    for thread in (late, other):
        thread.join()
    event.remove(Engine, "commit", hold)
    fetch()
    assert outcomes == [Taken.ACCEPTED] * 2
    assert sorted(body[16] for body in got) == [1, 2]


def _waiting_for_locks(connected: Database) -> bool:
    query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with connected.reading() as connection:
        return bool(connection.execute(query).scalar_one())


def test_two_workers_and_a_leader_lose_and_double_nothing(here: Uploads, where: str) -> None:
    """Each device sends its report through both workers; the leader fetches meanwhile."""
    other = queue_of(where)[1]
    workers = [here, Uploads(other)]
    bodies = [report_of(bytes([number]) * 32) for number in range(1, 25)]
    outcomes: list[Taken] = []
    got: list[bytes] = []
    threads = [
        threading.Thread(target=lambda w=worker: outcomes.extend(take(w, body) for body in bodies))  # type: ignore[misc]
        for worker in workers
    ]
    for each in threads:
        each.start()
    ack = 0
    while any(each.is_alive() for each in threads) or handed(workers[0], ack):
        found = handed(workers[1], ack)
        got.extend(found.values())
        ack = max(found, default=ack)
    assert sorted(got) == sorted(bodies)
    assert outcomes.count(Taken.ACCEPTED) == outcomes.count(Taken.DUPLICATE) == len(bodies)
    other.close()


# Killed.


class Played:
    """A collection of two reports and a withdrawal, played again from where it was after each crash."""

    def __init__(self, path: Path) -> None:
        self.bodies = [report_of(device) for device in DEVICES[:2]]
        self.back = withdrawal_of(DEVICES[0], TASK)
        self.sent: set[bytes] = set()
        self.got: list[bytes] = []
        self.path = path

    def play(self) -> None:
        """Open, upload, fetch, withdraw, fetch: a leader that restarts has what it took, and begins at 0."""
        _, connected = queue_of(str(self.path))
        with closing(connected):
            here = Uploads(connected)
            assert here.refresh(INVITED, 1)
            self._send(here, self.bodies)
            ack = self._fetch(here, 0)
            self._send(here, [self.back])
            self._fetch(here, ack)

    def _send(self, here: Uploads, bodies: list[bytes]) -> None:
        for body in bodies:
            if body not in self.sent:
                assert take(here, body) in (Taken.ACCEPTED, Taken.DUPLICATE)
                self.sent.add(body)

    def _fetch(self, here: Uploads, ack: int) -> int:
        while found := handed(here, ack):
            self.got.extend(body for body in found.values() if body not in self.got)
            ack = max(found)
        return ack


def test_killed_before_any_statement_or_commit_it_loses_nothing(tmp_path: Path) -> None:
    fresh = tmp_path / "fresh.db"
    queue_of(str(fresh))[1].close()
    reached = 0
    with killer() as killing:
        for number in count():
            played = Played(tmp_path / f"{number}.db")
            shutil.copy(fresh, played.path)
            killing.at, killing.reached, killing.armed = number, 0, True
            try:
                played.play()
            except Killed:
                reached += 1
            else:
                break
            finally:
                killing.armed = False
            played.play()
            assert sorted(played.got) == sorted([*played.bodies, played.back])
    assert reached > 20

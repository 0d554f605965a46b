"""The store: what it refuses to open, what it refuses to take in, what it deletes, and what it can show."""

import os
import signal
import sqlite3
import struct
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from clients.device import database
from clients.device.consent import Grant, allows
from clients.device.journal import sentence
from clients.device.keys import StoreKey, new_key
from clients.device.proof import problems
from clients.device.store import Rules, Scope, Store, _leaf
from fa_core.errors import BadInput, Refused
from fa_core.tables import SOURCES, WAKE_EVENTS
from tests.device.setup import KEY, NOW, RULES, wake

YEAR = timedelta(days=365)
SETTINGS = database.settings()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    database.create(tmp_path / "store.db", KEY)
    return Store.open(tmp_path / "store.db", KEY, RULES, NOW)


@pytest.fixture
def consenting(store: Store) -> Store:
    store.grant("quality_metrics", NOW + YEAR, NOW)
    return store


def events_in(store: Store) -> int:
    return sum(sum(by_purpose.values()) for by_purpose in store.counts().values())


# What is there is never replaced.


def spoiled(good: bytes) -> dict[str, bytes]:
    flipped = bytearray(good)
    flipped[5 * database.PAGE + 17] ^= 1
    return {
        "empty": b"",
        "cut inside a page": good[:-100],
        "cut at a page": good[: -3 * database.PAGE],
        "one bit flipped": bytes(flipped),
        "random": os.urandom(4 * database.PAGE),
        "text": b"dear diary " * 1000,
        "plain SQLite": b"SQLite format 3\0" + bytes(2 * database.PAGE - 16),
    }


def test_a_file_that_is_not_this_store_is_refused_and_left_as_it_is(store: Store, tmp_path: Path) -> None:
    store.close()
    for name, data in spoiled((tmp_path / "store.db").read_bytes()).items():
        path = tmp_path / "spoiled.db"
        path.write_bytes(data)
        with pytest.raises((BadInput, Refused), match=r"spoiled\.db"):
            database.connect(path, KEY)
        with pytest.raises(Refused, match="never written over"):
            database.create(path, KEY)
        assert path.read_bytes() == data, name
    assert sorted(os.listdir(tmp_path)) == ["spoiled.db", "store.db"]


def test_a_wrong_key_is_refused_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    store.close()
    before = (tmp_path / "store.db").read_bytes()
    with pytest.raises(Refused, match="does not open with this key"):
        database.connect(tmp_path / "store.db", new_key())
    assert (tmp_path / "store.db").read_bytes() == before


def test_a_missing_store_is_not_made_by_opening_it(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no store"):
        database.connect(tmp_path / "store.db", KEY)
    assert not os.listdir(tmp_path)


def test_another_programs_encrypted_file_and_another_version_are_refused(tmp_path: Path) -> None:
    for pragma, words in (("application_id = 7", "another program"), ("user_version = 9", "version 9")):
        path = tmp_path / f"{words}.db"
        database.create(path, KEY)
        connection = database.connect(path, KEY)
        connection.execute(f"PRAGMA {pragma}")
        connection.close()
        with pytest.raises((BadInput, Refused), match=words):
            database.connect(path, KEY)


def test_the_file_cannot_be_read_without_the_key(consenting: Store, tmp_path: Path) -> None:
    consenting.record("wake_events", [wake(1)], "quality_metrics", NOW)
    consenting.close()
    data = (tmp_path / "store.db").read_bytes()
    assert not any(word in data for word in (b"SQLite", b"okay_nabu", b"CREATE", b"quality_metrics"))
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(tmp_path / "store.db").execute("SELECT * FROM wake_events")
    assert (tmp_path / "store.db").stat().st_mode & 0o077 == 0


# A crash at any write.


def crash_while_writing(path: Path, key: StoreKey, statements: int) -> None:
    """Write in another process and kill it after so many statements of a transaction that spills to disk."""
    child = os.fork()
    if child == 0:
        connection = database.connect(path, key)
        connection.execute("PRAGMA cache_size = 5")
        connection.execute("BEGIN IMMEDIATE")
        for number in range(statements):
            connection.execute("INSERT INTO state VALUES (?, ?)", (f"{number}", os.urandom(2000)))
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.mark.parametrize("statements", [0, 1, 40, 400])
def test_a_crash_in_a_transaction_leaves_a_store_that_opens_as_it_was(
    consenting: Store, tmp_path: Path, statements: int
) -> None:
    consenting.record("wake_events", [wake(1)], "quality_metrics", NOW)
    consenting.close()
    crash_while_writing(tmp_path / "store.db", KEY, statements)
    again = Store.open(tmp_path / "store.db", KEY, RULES, NOW)
    assert again.counts()["wake_events"] == {"quality_metrics": 1}
    assert problems(again, None) == []
    assert again.connection.execute("SELECT count(*) FROM state").fetchone() == (0,)


def test_a_wrong_key_after_a_crash_loses_nothing(consenting: Store, tmp_path: Path) -> None:
    consenting.record("wake_events", [wake(1)], "quality_metrics", NOW)
    consenting.close()
    crash_while_writing(tmp_path / "store.db", KEY, 400)
    assert (tmp_path / "store.db-journal").exists()
    with pytest.raises(Refused):
        database.connect(tmp_path / "store.db", new_key())
    again = Store.open(tmp_path / "store.db", KEY, RULES, NOW)
    assert again.counts()["wake_events"] == {"quality_metrics": 1}


def test_a_crash_while_a_store_is_made_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "store.db.new").write_bytes(b"half a store")
    database.create(tmp_path / "store.db", KEY)
    Store.open(tmp_path / "store.db", KEY, RULES, NOW).close()
    assert os.listdir(tmp_path) == ["store.db"]


# Insertion.


def test_without_consent_nothing_is_written(store: Store) -> None:
    assert store.record("wake_events", [wake(1)], "quality_metrics", NOW) == 0
    store.grant("debug", NOW + YEAR, NOW)
    assert store.record("wake_events", [wake(1)], "quality_metrics", NOW) == 0
    assert events_in(store) == 0


def test_consent_is_for_its_purpose_and_its_time(store: Store) -> None:
    store.grant("quality_metrics", NOW + timedelta(days=2), NOW)
    assert store.record("wake_events", [wake(1)], "quality_metrics", NOW) == 1
    assert store.record("wake_events", [wake(1)], "personalisation", NOW) == 0
    assert store.record("wake_events", [wake(1)], "quality_metrics", NOW + timedelta(days=2)) == 0


def test_a_grant_ends_by_itself() -> None:
    """Also in the moment before the store deletes what it was for."""
    grant = Grant("quality_metrics", NOW, NOW + timedelta(days=2))
    for at, allowed in ((-1, False), (0, True), (47, True), (48, False), (49, False), (24 * 400, False)):
        assert allows([grant], "quality_metrics", NOW + timedelta(hours=at)) == allowed
    assert not allows([grant], "debug", NOW)


def test_consent_that_ran_out_deletes_what_its_purpose_had_stored(store: Store, tmp_path: Path) -> None:
    store.grant("quality_metrics", NOW + timedelta(days=2), NOW)
    store.grant("debug", NOW + timedelta(days=20), NOW)
    for purpose in ("quality_metrics", "debug"):
        store.record("wake_events", [wake(1)], purpose, NOW)
    store.close()
    later = Store.open(tmp_path / "store.db", KEY, RULES, NOW + timedelta(days=3))
    assert later.counts()["wake_events"] == {"debug": 1}
    assert "its time ran out" in sentence(later.entries()[-1])


def test_revoking_deletes_what_the_purpose_had_stored_and_says_so(consenting: Store) -> None:
    consenting.grant("debug", NOW + YEAR, NOW)
    consenting.record("wake_events", [wake(hours) for hours in (1, 2, 3)], "quality_metrics", NOW)
    consenting.record("wake_events", [wake(1)], "debug", NOW)
    entry = consenting.revoke("quality_metrics", NOW)
    assert consenting.counts()["wake_events"] == {"debug": 1}
    assert sentence(entry) == "Consent to quality_metrics ended (you revoked it); deleted 3 of wake_events."
    assert consenting.record("wake_events", [wake(1)], "quality_metrics", NOW) == 0


def test_labels_off_the_allow_list_become_other(consenting: Store) -> None:
    consenting.record(
        "wake_events", [wake(1, wake_word="call mum", model_version="2.1")], "quality_metrics", NOW
    )
    row = consenting.table("wake_events", "quality_metrics", NOW - YEAR, NOW).to_pylist()[0]
    assert (row["wake_word"], row["model_version"]) == ("other", "2.1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"outcome": "a secret"},
        {"score": 1.5},
        {"score": float("nan")},
        {"score": "0.5"},
        {"accepted": 1},
        {"time": "yesterday"},
        {"time": NOW.replace(tzinfo=None)},
        {"transcript": "a secret"},
        {"wake_word": 7},
        {"playback": "a secret"},
    ],
)
def test_a_value_that_its_column_cannot_hold_is_refused_without_being_repeated(
    consenting: Store, wrong: dict[str, object]
) -> None:
    with pytest.raises(BadInput) as caught:
        consenting.record("wake_events", [wake(1), wake(1, **wrong)], "quality_metrics", NOW)
    assert "a secret" not in str(caught.value)
    assert events_in(consenting) == 0


def test_what_was_written_is_what_is_read(consenting: Store) -> None:
    events = [wake(hours, snr_db=None if hours == 2 else 8.25) for hours in (1, 2, 3)]
    consenting.record("wake_events", events, "quality_metrics", NOW)
    table = consenting.table("wake_events", "quality_metrics", NOW - YEAR, NOW)
    assert table.schema == WAKE_EVENTS.arrow_schema()
    assert table.to_pylist() == events


def test_the_window_is_half_open(consenting: Store) -> None:
    consenting.record("wake_events", [wake(0), wake(24), wake(25)], "quality_metrics", NOW)
    read = consenting.table("wake_events", "quality_metrics", NOW - timedelta(hours=24), NOW)
    assert [row["time"] for row in read.to_pylist()] == [NOW - timedelta(hours=24)]


def test_an_hour_of_listening_that_was_written_in_parts_is_one_row(consenting: Store) -> None:
    part = {
        "time": NOW - timedelta(hours=1), "wake_word": "alexa", "model_version": "micro-1",
        "snr_db": 10.0, "playback": False, "minutes": 40,
    }  # fmt: skip
    consenting.record("listening", [part], "quality_metrics", NOW)
    consenting.record("listening", [{**part, "minutes": 10, "snr_db": 20.0}], "quality_metrics", NOW)
    consenting.record("listening", [{**part, "minutes": 30, "playback": True}], "quality_metrics", NOW)
    consenting.record("listening", [{**part, "minutes": 20, "snr_db": None}], "quality_metrics", NOW)
    rows = consenting.table("listening", "quality_metrics", NOW - YEAR, NOW).to_pylist()
    assert rows == [{**part, "minutes": 60, "snr_db": 12.0}, {**part, "minutes": 30, "playback": True}]


# Retention.


def test_rows_past_their_retention_go_on_open_and_on_every_write(tmp_path: Path) -> None:
    rules = Rules({"wake_events": timedelta(days=2)}, RULES.labels)
    database.create(tmp_path / "store.db", KEY)
    store = Store.open(tmp_path / "store.db", KEY, rules, NOW)
    store.grant("quality_metrics", NOW + YEAR, NOW)
    store.record("wake_events", [wake(1), wake(40)], "quality_metrics", NOW)
    store.record("wake_events", [wake(1)], "quality_metrics", NOW + timedelta(hours=9))
    assert store.counts()["wake_events"] == {"quality_metrics": 2}
    assert sentence(store.entries()[-1]) == "Kept long enough: deleted 1 of wake_events."
    store.close()
    later = Store.open(tmp_path / "store.db", KEY, rules, NOW + timedelta(days=3))
    assert events_in(later) == 0
    assert problems(later, None) == []


def test_no_row_ever_outlives_its_retention(consenting: Store) -> None:
    consenting.record("wake_events", [wake(hours) for hours in range(0, 720, 7)], "quality_metrics", NOW)
    for hours in range(0, 720, 47):
        now = NOW + timedelta(hours=hours, minutes=59)
        consenting.set_facts({}, now)
        table = consenting.table("wake_events", "quality_metrics", NOW - 9 * YEAR, NOW + YEAR)
        assert all(now - row["time"] <= timedelta(days=30) for row in table.to_pylist())


def test_rows_of_the_wrong_time_are_not_written(consenting: Store) -> None:
    assert consenting.record("wake_events", [wake(-30), wake(31 * 24)], "quality_metrics", NOW) == 0


@pytest.mark.parametrize(("days", "left"), [(2, 1), (29, 1), (31, 0), (90, 0)])
def test_a_clock_that_is_set_back_deletes_what_lies_further_ahead_than_a_row_is_kept(
    consenting: Store, days: int, left: int
) -> None:
    ahead = NOW + timedelta(days=days)
    consenting.record("wake_events", [wake(-days * 24)], "quality_metrics", ahead)
    consenting.set_facts({}, NOW)
    assert events_in(consenting) == left
    assert consenting.record("wake_events", [wake(0)], "quality_metrics", NOW) == 1
    consenting.set_facts({}, ahead + timedelta(days=30))
    assert events_in(consenting) == 0
    assert problems(consenting, None) == []


def test_a_device_that_boots_without_a_clock_deletes_and_writes_nothing(consenting: Store) -> None:
    consenting.record("wake_events", [wake(1)], "quality_metrics", NOW)
    boot = NOW.replace(year=1970)
    assert consenting.record("wake_events", [wake(1, time=boot)], "quality_metrics", boot) == 0
    consenting.set_facts({}, boot)
    assert consenting.counts()["wake_events"] == {"quality_metrics": 1}


def test_a_store_of_before_gets_the_tables_that_are_younger(tmp_path: Path) -> None:
    database.create(tmp_path / "store.db", KEY)
    before = database.connect(tmp_path / "store.db", KEY)
    before.execute("DROP TABLE detections")
    before.close()
    store = Store.open(tmp_path / "store.db", KEY, RULES, NOW)
    store.grant("quality_metrics", NOW + timedelta(days=9), NOW)
    detected = {"time": NOW, "wake_word": "okay_nabu", "model_version": "micro-1"}
    assert store.record("detections", [detected], "quality_metrics", NOW) == 1
    assert store.counts()["detections"] == {"quality_metrics": 1}
    store.close()


def test_a_fact_with_closed_values_takes_no_other(consenting: Store) -> None:
    consenting.set_facts({"power_source": "battery"}, NOW)
    with pytest.raises(BadInput, match="power_source must be one of mains, battery"):
        consenting.set_facts({"power_source": "solar"}, NOW)
    assert consenting.facts() == {"power_source": "battery"}


def test_a_column_that_came_with_an_update_changes_no_proof_of_a_deletion(tmp_path: Path) -> None:
    """Rows of before are still those that the last deletion left; a change of one is still found."""
    database.create(tmp_path / "store.db", KEY)
    store = Store.open(tmp_path / "store.db", KEY, RULES, NOW)
    store.grant("quality_metrics", NOW + timedelta(days=9), NOW)
    store.record("command_events", [{"time": NOW, "retries": 1, "latency_ms": 3.0}], "quality_metrics", NOW)
    store.forget(Scope(source="wake_events"), NOW)
    left = store.root(store.numbered())
    before = (1, "quality_metrics", 0, "other", None, 3.0)
    assert _leaf("command_events", (*before, None)) == _leaf("command_events", before)
    store.connection.execute("ALTER TABLE command_events DROP COLUMN confirmation")
    store.close()
    again = Store.open(tmp_path / "store.db", KEY, RULES, NOW)
    assert again.root(again.numbered()) == left
    assert problems(again, None) == []
    asked = {"time": NOW, "confirmation": "denied"}
    assert again.record("command_events", [asked], "quality_metrics", NOW) == 1
    assert problems(again, None) == []
    with pytest.raises(BadInput, match="not_asked, confirmed, denied, unanswered"):
        again.record("command_events", [asked | {"confirmation": "maybe"}], "quality_metrics", NOW)
    again.connection.execute("UPDATE command_events SET confirmation = 'denied' WHERE id = 1")
    assert problems(again, None) != []
    again.close()


DICTATION = {"time": NOW, "model_version": "other", "words": 12, "word_errors": 3, "corrected": True}
KINDS = {"insertions": 1, "deletions": 0, "substitutions": 2}


def test_a_store_of_before_gets_the_columns_that_are_younger(tmp_path: Path) -> None:
    """Its rows stay, with those columns empty; a second opening finds nothing to do."""
    database.create(tmp_path / "store.db", KEY)
    before = database.connect(tmp_path / "store.db", KEY)
    for name in KINDS:
        before.execute(f"ALTER TABLE dictation_events DROP COLUMN {name}")
    at = int(NOW.timestamp()) * 1_000_000
    before.execute(
        "INSERT INTO dictation_events (purpose, time, model_version, words, word_errors, corrected) "
        f"VALUES ('quality_metrics', {at}, 'other', 5, 1, 0)"
    )
    before.close()
    store = Store.open(tmp_path / "store.db", KEY, RULES, NOW)
    store.grant("quality_metrics", NOW + timedelta(days=9), NOW)
    assert store.record("dictation_events", [DICTATION | KINDS], "quality_metrics", NOW) == 1
    store.close()
    bytes_before = (tmp_path / "store.db").read_bytes()
    again = database.connect(tmp_path / "store.db", KEY)
    found = again.execute(f"SELECT words, word_errors, {', '.join(KINDS)} FROM dictation_events").fetchall()
    again.close()
    assert found == [(5, 1, None, None, None), (12, 3, 1, 0, 2)]
    assert (tmp_path / "store.db").read_bytes() == bytes_before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"deletions": None}, "all three or none"),
        ({"insertions": 2}, "add up to word_errors"),
        ({"words": 1}, "than were said"),
    ],
)
def test_kinds_of_word_errors_that_cannot_be_are_refused(
    consenting: Store, changed: dict[str, object], words: str
) -> None:
    with pytest.raises(BadInput, match=f"insertions, deletions, substitutions: .*{words}"):
        consenting.record("dictation_events", [DICTATION | KINDS | changed], "quality_metrics", NOW)


# Facts.


def test_facts_are_stored_in_the_normal_form_of_labels(consenting: Store) -> None:
    consenting.set_facts({"accent": " cafe\u0301"}, NOW)
    assert consenting.facts() == {"accent": "café"}


@pytest.mark.parametrize("value", ["", "a\x00b", "a\u202eb", "x" * 65])
def test_a_fact_that_no_plan_could_name_is_refused(consenting: Store, value: str) -> None:
    with pytest.raises(BadInput, match=r"^accent ") as error:
        consenting.set_facts({"accent": value}, NOW)
    assert not value or value not in str(error.value)
    assert consenting.facts() == {}


# Forgetting, and what can be shown of it.


def test_forgetting_leaves_a_proof_that_verifies(consenting: Store) -> None:
    consenting.record("wake_events", [wake(hours) for hours in (1, 2)], "quality_metrics", NOW)
    consenting.set_facts({"accent": "en-GB"}, NOW)
    entry = consenting.forget(Scope(), NOW)
    assert events_in(consenting) == 0
    assert consenting.facts() == {}
    assert sentence(entry) == "You asked to forget everything; deleted 2 of wake_events."
    assert problems(consenting, entry.hash) == []
    consenting.record("wake_events", [wake(1)], "quality_metrics", NOW)
    assert problems(consenting, entry.hash) == []


def test_forgetting_a_table_or_a_purpose_leaves_the_rest(consenting: Store) -> None:
    consenting.grant("debug", NOW + YEAR, NOW)
    for purpose in ("quality_metrics", "debug"):
        consenting.record("wake_events", [wake(1)], purpose, NOW)
        consenting.record("command_events", [{"time": NOW, "intent_predicted": "lights_on"}], purpose, NOW)
    consenting.forget(Scope(purpose="debug"), NOW)
    assert consenting.counts()["command_events"] == {"quality_metrics": 1}
    consenting.forget(Scope(source="wake_events"), NOW)
    assert consenting.counts()["wake_events"] == {}
    assert consenting.counts()["command_events"] == {"quality_metrics": 1}
    assert problems(consenting, None) == []


def test_deleted_rows_are_gone_from_the_file_itself(consenting: Store, tmp_path: Path) -> None:
    """Seen with the key: the decrypted pages hold no trace, because freed space is overwritten."""
    consenting.record("wake_events", [wake(1, score=0.123456789)], "quality_metrics", NOW)
    needle = struct.pack(">d", 0.123456789)  # as SQLite stores it
    assert needle in decrypted(tmp_path)
    consenting.forget(Scope(), NOW)
    assert needle not in decrypted(tmp_path)


def decrypted(folder: Path) -> bytes:
    """Return the store's pages, decrypted as SQLCipher 4 does: AES-256-CBC, IV 80 bytes from the end."""
    data = (folder / "store.db").read_bytes()
    pages = []
    for start in range(0, len(data), database.PAGE):
        page = data[start : start + database.PAGE]
        body = page[16 if start == 0 else 0 : -80]
        decryptor = Cipher(algorithms.AES(KEY.secret), modes.CBC(page[-80:-64])).decryptor()
        pages.append(decryptor.update(body) + decryptor.finalize())
    return b"".join(pages)


TAMPERS = {
    "an entry changed": "UPDATE journal SET body = replace(body, ': 1', ': 0')",
    "an entry dropped": "DELETE FROM journal WHERE sequence = 2",
    "a row put back": "INSERT INTO wake_events (id, purpose, time) VALUES (1, 'debug', 1772452800000000)",
    "a row removed": "DELETE FROM command_events",
    "a row changed": "UPDATE command_events SET retries = 9",
    "a consent forged": "INSERT INTO consent VALUES ('debug', 0, 1)",
    "a consent stretched": "UPDATE consent SET until = until + 1",
    "a charge forged": "INSERT INTO contribution VALUES (x'00', 0, '', '', 0, 0, '1', 0, 0, 0)",
}


@pytest.mark.parametrize("tamper", list(TAMPERS))
def test_verify_finds_every_tampering(consenting: Store, tamper: str) -> None:
    consenting.record("wake_events", [wake(1)], "quality_metrics", NOW)
    consenting.record("command_events", [{"time": NOW, "retries": 1}], "quality_metrics", NOW)
    consenting.forget(Scope(source="wake_events"), NOW)
    assert problems(consenting, None) == []
    consenting.connection.execute(TAMPERS[tamper])
    assert problems(consenting, None) != []


def test_a_journal_cut_short_is_found_by_the_head_that_was_written_down(consenting: Store) -> None:
    head = consenting.forget(Scope(), NOW).hash
    assert problems(consenting, head) == []
    consenting.connection.execute("DELETE FROM journal WHERE sequence = (SELECT max(sequence) FROM journal)")
    assert problems(consenting, None) == []
    assert problems(consenting, head) != []


def test_every_table_of_a_plan_is_a_table_of_the_store(store: Store) -> None:
    for name, source in SOURCES.items():
        empty = store.table(name, "quality_metrics", NOW - YEAR, NOW)
        assert (empty.num_rows, empty.schema) == (0, source.arrow_schema())


def test_a_store_waits_for_the_disk_and_overwrites_what_it_deletes(tmp_path: Path) -> None:
    database.create(tmp_path / "store.db", KEY)
    connection = database.connect(tmp_path / "store.db", KEY)
    assert connection.execute("PRAGMA secure_delete").fetchone() == (1,)
    assert connection.execute("PRAGMA temp_store").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert "PRAGMA synchronous = EXTRA" in SETTINGS

"""Whatever is cut off, changed or foreign is found and said in a sentence; nothing half-written is seen."""

import sqlite3
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, text

from fa_core.errors import BadInput
from fa_core.privacy.ledger_rows import START, digest, encode
from fa_core.store import Store, bodies, open_store
from fa_core.store.database import FILE
from tests.store.samples import (
    LOG_KEY,
    NOW,
    WITNESS_KEY,
    KeepingWitness,
    announce,
    charge,
    charge_for,
    make_estimates,
    make_release,
    plan,
    release_id,
    run,
    same,
)


@pytest.fixture
def filled(where: str) -> str:
    """A store with two releases, a failure and two checkpoints, closed."""
    witness = KeepingWitness()
    with open_store(where) as store:
        store.note_key("authority", bytes(32))
        for number in range(2):
            run(store, make_release(number))
            store.checkpoint(LOG_KEY, witness)
        store.fail(release_id(2), plan(), "homes", "join", "nobody answered", NOW)
    return where


def problems(where: str) -> list[str]:
    with open_store(where, create=False) as store:
        return store.verify_ledger() + store.verify_log(LOG_KEY.public_key(), WITNESS_KEY.public_key())


def execute(where: str, *statements: str) -> None:
    url = (
        where.replace("postgresql:", "postgresql+psycopg:") if "://" in where else f"sqlite:///{where}/{FILE}"
    )
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def columns(where: str) -> list[tuple[str, str, str]]:
    """Every table, column and primary key value with something in it that can be changed."""
    found = []
    with open_store(where) as store, store._database.reading() as connection:
        for table, key in KEYS.items():
            for row in connection.execute(text(f"SELECT * FROM {table}")):
                cells = row._asdict()
                found += [
                    (table, column, f"{key} = '{cells[key]}'")
                    for column in cells
                    if cells[column] is not None
                ]
    return found


KEYS = {"ledger": "seq", "log": "seq", "checkpoints": "size", "releases": "id", "failures": "release"}


def test_rewriting_anything_in_the_tables_is_found(filled: str) -> None:
    """One value at a time, in every row and column: a number, a flag, a byte of text or bytes."""
    assert problems(filled) == []
    with open_store(filled) as store:
        for table, column, at in columns(filled):
            assert found_when_changed(store, table, column, at), f"{column} of {table} where {at}"
    assert problems(filled) == []


def found_when_changed(store: Store, table: str, column: str, at: str) -> list[str]:
    found: list[str] = []
    with suppress(Untouched), store._database.writing() as connection:
        change(connection, table, column, at)
        found = verify_inside(store, connection)
        raise Untouched
    return found


class Untouched(Exception):
    """Rolls the change of a test back."""


def change(connection: Connection, table: str, column: str, at: str) -> None:
    if connection.dialect.name == "sqlite":
        connection.execute(text("PRAGMA defer_foreign_keys = ON"))
    else:
        connection.execute(text("SET session_replication_role = replica"))
    value = connection.execute(text(f"SELECT {column} FROM {table} WHERE {at}")).scalar_one()
    connection.execute(
        text(f"UPDATE {table} SET {column} = :value WHERE {at}"), {"value": other(value, column)}
    )


def other(value: object, column: str) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 1 - value if column in ("simulated", "synthetic") else value + 1000
    if isinstance(value, bytes | memoryview):
        data = bytearray(value)
        data[len(data) // 2] ^= 1
        return bytes(data)
    assert isinstance(value, str)
    return "0" + value[1:] if value[0] != "0" else "1" + value[1:]


def verify_inside(store: Store, connection: Connection) -> list[str]:
    """What the store finds, seen from inside the transaction that changed it."""
    from fa_core.store import catalogue, chain, translog

    found = chain.verify(connection)
    found += translog.verify(connection, [LOG_KEY.public_key()], WITNESS_KEY.public_key())
    return found or catalogue.verify(connection, store._bodies)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM ledger WHERE seq = 2", "the transparency log has 3 ledger rows, the ledger 2"),
        ("DELETE FROM ledger WHERE seq = 1", "ledger row 1 is missing"),
        ("DELETE FROM log WHERE seq = 3", "log entry 3 is missing"),
        ("DELETE FROM log WHERE seq >= 5", "of a longer log: 5 are here, the last were cut off"),
        ("DELETE FROM releases WHERE id > ''", "the catalogue does not know it"),
        ("DELETE FROM failures", "the catalogue does not know it"),
    ],
)
def test_a_removed_row_is_found(filled: str, statement: str, says: str) -> None:
    if "://" in filled:
        execute(filled, "ALTER TABLE releases DROP CONSTRAINT releases_id_fkey", statement)
    else:
        connection = sqlite3.connect(Path(filled) / FILE)
        connection.execute(statement)
        connection.commit()
        connection.close()
    assert says in "\n".join(problems(filled))


def test_a_chain_recomputed_by_a_forger_is_found_by_the_log(filled: str) -> None:
    """A chain with a charge and every later hash rewritten still disagrees with the logged rows."""
    from fa_core.store import chain
    from fa_core.store.schema import ledger

    with open_store(filled) as store, store._database.writing() as connection:
        before = START
        for row in chain.rows(connection):
            value = row.value
            if not isinstance(value, chain.Declaration):
                value = replace(value, cost=value.cost / 2)
            body = encode(value)
            before = digest(before, body)
            connection.execute(ledger.update().where(ledger.c.seq == row.seq).values(body=body, hash=before))
    assert "ledger row 1 is another than the transparency log's" in problems(filled)


def test_an_over_spent_ledger_is_found_even_with_its_hashes_right(where: str) -> None:
    from fa_core.store import chain

    with open_store(where) as store:
        announce(store, plan())
        charge(store, charge_for(make_release(0)))
        with store._database.writing() as connection:
            chain._append(connection, replace(charge_for(make_release(1)), cost=Fraction(1, 5)))
            chain._append(connection, replace(charge_for(make_release(2)), cost=Fraction(2, 5)))
        assert any("release budget: asks rho 0.4" in each for each in store.verify_ledger())


def test_a_history_for_one_reader_alone_is_not_cosigned(store: Store, tmp_path: Path) -> None:
    from fa_core.errors import Refused

    witness = KeepingWitness()
    run(store, make_release(0))
    store.checkpoint(LOG_KEY, witness)
    with open_store(tmp_path / "fork") as fork:
        for number in range(1, 4):
            run(fork, make_release(number))
        with pytest.raises(Refused, match="no extension of the 6 that it signed before"):
            fork.checkpoint(LOG_KEY, witness)


def parquet_files(folder: str) -> list[Path]:
    return sorted((Path(folder) / "releases").glob("*.parquet"))


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """A store in a folder, with one release, closed."""
    with open_store(tmp_path / "store") as store:
        run(store, make_release())
    return str(tmp_path / "store")


def test_a_changed_byte_of_a_file_is_found(folder: str) -> None:
    for path in parquet_files(folder):
        data = path.read_bytes()
        for place in range(0, len(data), 211):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            assert any(f"{path.name} is not what was written" in each for each in problems(folder))
        path.write_bytes(data)
    assert "is not signed by the log's key" not in problems(folder)


@pytest.mark.parametrize("damage", ["truncate", "remove", "foreign"])
def test_a_damaged_file_is_named(folder: str, damage: str) -> None:
    for path in parquet_files(folder):
        data = path.read_bytes()
        if damage == "truncate":
            path.write_bytes(data[: len(data) // 2])
        elif damage == "foreign":
            path.write_bytes(b"PAR1 but not really PAR1")
        else:
            path.unlink()
        with open_store(folder) as store, pytest.raises(BadInput, match=path.name):
            store.release("latest")
        path.write_bytes(data)


@pytest.mark.parametrize("content", [b"not a database at all" * 50, b"SQLite format 3\x00" + bytes(4000)])
def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(BadInput, match=r"store\.db"):
        open_store(tmp_path)


def test_a_truncated_database_is_a_sentence(folder: str) -> None:
    path = Path(folder) / FILE
    data = path.read_bytes()
    for length in (0, 50, 5000, len(data) // 2):
        path.write_bytes(data[:length])
        with pytest.raises(BadInput, match=r"store\.db"), open_store(folder) as store:
            store.release("latest")


def test_a_database_of_something_else_is_refused(where: str) -> None:
    if "://" not in where:
        Path(where).mkdir()
    execute(where, "CREATE TABLE recipes (name TEXT)")
    with pytest.raises(BadInput, match="a database of something else"):
        open_store(where)


def test_a_store_of_a_newer_version_is_refused(where: str) -> None:
    open_store(where).close()
    execute(where, "UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(BadInput, match="newer version of Unheard"):
        open_store(where)


def test_a_file_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello")
    with pytest.raises(BadInput, match="is a file; a store is a folder"):
        open_store(tmp_path / "x")


@pytest.mark.parametrize("step", ["first file", "second file", "catalogue"])
def test_a_crash_while_saving_leaves_nothing_half_visible(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    release = make_release()
    announce(store, release.plan)
    charge(store, charge_for(release))
    size = store.log_size()

    calls: list[str] = []
    kind = type(store._bodies)
    write = kind.write

    def crash(self: bodies.Bodies, connection: Connection, name: str, data: bytes) -> None:
        calls.append(name)
        if len(calls) == {"first file": 1, "second file": 2, "catalogue": 3}[step]:
            raise KeyboardInterrupt
        write(self, connection, name, data)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(kind, "write", crash)
        if step == "catalogue":
            patched.setattr("fa_core.store.catalogue.logged", lambda row: 1 / 0)
        with pytest.raises((KeyboardInterrupt, ZeroDivisionError)):
            store.save(release, make_estimates(), synthetic=True)
    assert (store.count(), store.log_size()) == (0, size)
    assert store.verify_log() == []
    store.save(release, make_estimates(), synthetic=True)
    assert same(store.release("latest"), release)


def test_no_temporary_file_is_left_by_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bodies.FolderBodies(tmp_path).write(None, "x.parquet", b"data")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []

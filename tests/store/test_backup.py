"""Backup and restore: a store is the same again, on either database, or there is none."""

import io
import json
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from fa_core.errors import BadInput, Refused
from fa_core.store import Store, open_store
from tests.store.samples import (
    DAY,
    LOG_KEY,
    NOW,
    KeepingWitness,
    announce,
    charge,
    charge_for,
    make_release,
    plan,
    release_id,
    run,
    same,
)

Change = Callable[[dict[str, bytes]], None]


@pytest.fixture
def full(store: Store) -> Store:
    """A store with two releases, a failure, a charge without an end, and checkpoints."""
    witness = KeepingWitness()
    run(store, make_release(0))
    store.checkpoint(LOG_KEY, witness)
    run(store, make_release(1, at=NOW + 7 * DAY))
    announce(store, plan("other"))
    lost = make_release(2, name="other", at=NOW + 8 * DAY)
    charge(store, charge_for(lost))
    store.fail(release_id(2), plan("other"), "homes", "masked", "too few", NOW + 8 * DAY)
    store.refuse(release_id(4), plan(), "homes", "no budget is left", NOW + 9 * DAY)
    store.annotate(NOW.date(), "model 5")
    store.annotate(NOW.date(), "model 6", "other")
    store.checkpoint(LOG_KEY, witness)
    return store


@pytest.fixture(params=["sqlite", "postgresql"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of another store that does not exist yet."""
    if request.param == "sqlite":
        return str(tmp_path / "elsewhere")
    make: Callable[[], str] = request.getfixturevalue("new_database")
    return make()


def everything(store: Store) -> object:
    entries = store.releases()
    return (
        store.ledger(),
        store.entries(),
        store.note(),
        store.failures(),
        store.refusals(),
        store.annotations(),
        entries,
        store.consistency_to(store.log_size()),
        store.keys("log"),
    )


def test_a_store_comes_back_on_either_database(full: Store, elsewhere: str, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    written = full.backup(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with open_store(elsewhere) as again:
        contents = again.restore(file)
        assert contents == written
        assert (contents.rows["releases"], contents.rows["failures"], contents.parts) == (2, 1, 4)
        assert everything(again) == everything(full)
        for entry in full.releases():
            assert same(again.read(entry), full.read(entry))
        assert again.verify_log(LOG_KEY.public_key()) == again.verify_ledger() == []
        run(again, make_release(3, at=NOW + 14 * DAY))  # and history goes on
        assert again.verify_log() == again.verify_ledger() == []


def test_an_empty_store_has_a_backup_too(store: Store, elsewhere: str, tmp_path: Path) -> None:
    store.backup(tmp_path / "backup")
    with open_store(elsewhere) as again:
        assert again.restore(tmp_path / "backup").log_size == 0


def test_history_is_never_written_over(full: Store, tmp_path: Path) -> None:
    before = everything(full)
    full.backup(tmp_path / "backup")
    with pytest.raises(Refused, match="not empty"):
        full.restore(tmp_path / "backup")
    with pytest.raises(BadInput, match="there already"):
        full.backup(tmp_path / "backup")
    assert everything(full) == before


def test_a_damaged_store_is_not_passed_off_as_a_good_one(full: Store, tmp_path: Path) -> None:
    with full._database.writing() as connection:
        connection.execute(text("UPDATE ledger SET population = 'others' WHERE seq = 1"))
    with pytest.raises(Refused, match="does not verify"):
        full.backup(tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_where_nothing_can_be_written_an_error_is_reported(full: Store, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written"):
        full.backup(tmp_path / "no folder" / "backup")


def rows(members: dict[str, bytes], table: str, change: Callable[[list[dict[str, object]]], None]) -> None:
    name = f"{table}.jsonl"
    found = [json.loads(line) for line in members[name].splitlines()]
    change(found)
    members[name] = "".join(json.dumps(row) + "\n" for row in found).encode()
    manifest = json.loads(members["store.json"])
    manifest["rows"][table] = len(found)
    members["store.json"] = json.dumps(manifest).encode()


def charge_less(members: dict[str, bytes]) -> None:
    rows(members, "ledger", lambda found: found[-1].update(population="others"))


def forget_a_charge(members: dict[str, bytes]) -> None:
    rows(members, "ledger", lambda found: found.pop())


def forget_the_end_of_the_log(members: dict[str, bytes]) -> None:
    rows(members, "log", lambda found: found.pop())


def change_a_result(members: dict[str, bytes]) -> None:
    rows(members, "releases", lambda found: found[0].update(counted=1))


def change_a_part(members: dict[str, bytes]) -> None:
    name = next(name for name in members if name.startswith("parts/"))
    members[name] = members[name][:-9] + bytes([members[name][-9] ^ 1]) + members[name][-8:]


def lose_a_part(members: dict[str, bytes]) -> None:
    del members[next(name for name in members if name.startswith("parts/"))]


def lose_a_table(members: dict[str, bytes]) -> None:
    del members["log.jsonl"]


def lose_lines(members: dict[str, bytes]) -> None:
    members["log.jsonl"] = members["log.jsonl"].rpartition(b"\n{")[0]


def another_version(members: dict[str, bytes]) -> None:
    members["store.json"] = members["store.json"].replace(b'"version": 1', b'"version": 2')


def another_type(members: dict[str, bytes]) -> None:
    rows(members, "checkpoints", lambda found: found[0].update(note=7))


def no_flag(members: dict[str, bytes]) -> None:
    rows(members, "releases", lambda found: found[0].update(simulated="x"))


def past_every_number(members: dict[str, bytes]) -> None:
    rows(members, "releases", lambda found: found[0].update(counted=2**70))


def divided_by_nothing(members: dict[str, bytes]) -> None:
    rows(members, "releases", lambda found: found[0].update(cost="1/0"))


def too_many_digits(members: dict[str, bytes]) -> None:
    rows(members, "releases", lambda found: found[0].update(cost="1e999999999"))


def too_deep(members: dict[str, bytes]) -> None:
    members["store.json"] = b"[" * 100_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The members of a good backup."""
    folder = tmp_path_factory.mktemp("whole")
    with open_store(folder / "store") as store:
        run(store, make_release(0))
        store.checkpoint(LOG_KEY, KeepingWitness())
        store.backup(folder / "backup")
    with tarfile.open(folder / "backup") as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "empty") as store:
        yield store


def pack(members: dict[str, bytes], file: Path) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file


@pytest.mark.parametrize(
    "change",
    [
        charge_less,
        forget_a_charge,
        forget_the_end_of_the_log,
        change_a_result,
        change_a_part,
        lose_a_part,
        lose_a_table,
        lose_lines,
        another_version,
        another_type,
        no_flag,
        past_every_number,
        divided_by_nothing,
        too_many_digits,
        too_deep,
    ],
)
def test_of_a_backup_that_was_changed_nothing_is_kept(
    whole: dict[str, bytes], empty: Store, tmp_path: Path, change: Change
) -> None:
    members = dict(whole)
    change(members)
    with pytest.raises(BadInput):
        empty.restore(pack(members, tmp_path / "changed"))
    assert (empty.ledger(), empty.entries(), empty.releases()) == ((), (), ())
    empty.restore(pack(whole, tmp_path / "good"))  # the store can still be filled
    assert empty.verify_log() == []


@pytest.mark.parametrize("data", [b"", b"nothing of the kind", bytes(10_240)])
def test_another_file_is_no_backup(empty: Store, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file").write_bytes(data)
    for name in ("file", "missing"):
        with pytest.raises(BadInput, match="no backup"):
            empty.restore(tmp_path / name)


def test_a_backup_that_was_cut_off_is_none(whole: dict[str, bytes], empty: Store, tmp_path: Path) -> None:
    file = pack(whole, tmp_path / "cut")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BadInput, match="no backup"):
        empty.restore(file)

"""`fa doctor`: each check passes on a sound set-up, and finds its fault in a broken one."""

import json
import shutil
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from fa_core.cli import build
from fa_core.doctor import machine, stores
from fa_core.doctor.check import examine
from fa_core.doctor.finding import Finding
from fa_core.errors import BadInput
from fa_core.federation import setup
from fa_core.federation.certificates import make_tls
from fa_core.federation.directory import Settings
from fa_core.gateway.setup import init
from fa_core.store import open_store
from fa_core.store.database import connect_server
from fa_core.trust import budgets
from fa_core.trust.enrolment import Authority, load
from tests.store.samples import LOG_KEY, WITNESS_KEY, KeepingWitness, make_release, run

WITNESS = WITNESS_KEY.public_key().public_bytes_raw()
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def room_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the disk of this machine has left."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1 << 40, 0, 1 << 40))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with one release, cosigned now."""
    place = tmp_path / "store"
    with open_store(place) as store:
        run(store, make_release())
        store.checkpoint(LOG_KEY, KeepingWitness(at=datetime.now(UTC)))
    return place


def states(findings: Iterator[Finding] | list[Finding]) -> dict[str, str]:
    return {each.check: each.state.value for each in findings}


def test_a_valid_store_has_only_good_findings(folder: Path) -> None:
    found = states(examine(str(folder)))
    assert {found[name] for name in ("python", "disk", "key files", "store", "ledger", "log")} == {"good"}


def test_every_finding_has_a_remedy(folder: Path) -> None:
    (folder / "open.key").write_text("secret")
    (folder / "open.key").chmod(0o644)
    found = [each for each in examine(str(folder)) if each.state != "good"]
    assert [each.check for each in found if each.state == "broken"] == ["key files"]
    assert all(each.mend for each in found)


def test_a_store_that_was_changed_is_broken(folder: Path) -> None:
    with open_store(folder) as store, store._database.writing() as connection:
        connection.execute(text("UPDATE ledger SET population = 'others'"))
    assert states(stores.store(str(folder)))["ledger"] == "broken"
    next((folder / "releases").glob("*.parquet")).unlink()
    assert states(stores.store(str(folder)))["log"] == "broken"


def test_tables_of_another_version_are_not_touched(folder: Path) -> None:
    for revision, state in (("9999", "broken"), ("0002", "good")):
        with open_store(folder) as store:
            pass
        with store._database.writing() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": revision})
        assert states(stores.store(str(folder)))["store"] == state
        with store._database.writing() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))


def test_the_check_creates_no_store(tmp_path: Path) -> None:
    assert states(stores.store(str(tmp_path))) == {"store": "look"}
    assert list(tmp_path.iterdir()) == []
    assert states(stores.store(f"postgresql://u:hush@/db?host={tmp_path}")) == {"store": "broken"}
    assert "hush" not in str(list(stores.store(f"postgresql://u:hush@/db?host={tmp_path}")))


class Witness:
    """A witness that answers, its clock off by `ahead`."""

    def __init__(self, ahead: timedelta) -> None:
        self.ahead = ahead

    def cosign(self, note: bytes, proof: tuple[bytes, ...]) -> bytes:
        return KeepingWitness(at=datetime.now(UTC) + self.ahead).cosign(note, proof)


@pytest.mark.parametrize(
    "minutes, state", [(0, "good"), (4, "good"), (-4, "good"), (10, "broken"), (-10, "broken")]
)
def test_the_clock_is_held_to_the_witness(folder: Path, minutes: int, state: str) -> None:
    witness = Witness(timedelta(minutes=minutes))
    assert stores.clock(str(folder), witness, WITNESS).state == state  # type: ignore[arg-type]


def test_without_the_witness_the_clock_may_not_be_behind_its_last_signature(tmp_path: Path) -> None:
    for hours, state in ((-24, "good"), (24, "broken")):
        place = tmp_path / str(hours)
        with open_store(place) as store:
            run(store, make_release())
            store.checkpoint(LOG_KEY, KeepingWitness(at=datetime.now(UTC) + timedelta(hours=hours)))
        assert stores.clock(str(place), None, WITNESS).state == state
    assert stores.clock(str(place), None, LOG_KEY.public_key().public_bytes_raw()).state == "broken"
    assert stores.clock(str(place), None, None).state == "look"


@pytest.mark.parametrize("free, state", [(10 << 30, "good"), (1 << 30, "look"), (1 << 20, "broken")])
def test_disk_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, state: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1, 1, free))
    assert machine.disk(tmp_path).state == state


def test_certificates_by_their_last_day(tmp_path: Path) -> None:
    make_tls(tmp_path, "tests", "localhost")
    now = datetime.now(UTC)
    for days, state in ((0, "good"), (380, "look"), (400, "broken")):
        found = list(machine.certificates(tmp_path, now + timedelta(days=days)))
        for name, wanted in (("server.crt", state), ("ca.crt", "good")):
            assert [each.state for each in found if each.found.startswith(f"{tmp_path / name} ")] == [wanted]
    (tmp_path / "bad.crt").write_text("none")
    assert [each.state for each in machine.certificates(tmp_path)] == ["broken", "good", "good"]


def test_packages_against_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    assert machine.packages(lock).state == "look"
    lock.write_text("absent-package==1.0 ; sys_platform == 'plan9' \\\n    --hash=sha256:00\n")
    assert machine.packages(lock).state == "good"
    lock.write_text("absent-package==1.0 \\\n    --hash=sha256:00\nsqlalchemy==0.0.1 \\\n")
    found = machine.packages(lock)
    assert found.state == "broken"
    assert "absent-package" in found.found
    assert "sqlalchemy" in found.found


def test_a_gateway(tmp_path: Path) -> None:
    public = tmp_path / "authority.pub"
    public.write_text(Authority.generate().public_key.hex())
    folder = tmp_path / "gateway"
    init(folder, "127.0.0.1:1", public, "gateway.db", 1)
    config = folder / "gateway.toml"
    config.write_text(config.read_text().replace("127.0.0.1:9464", "127.0.0.1:1"))
    found = states(examine(str(folder)))
    assert (found["authority"], found["database"], found["service"]) == ("good", "look", "look")
    (folder / "authority.pub").write_text("none")
    config.write_text(config.read_text().replace("gateway.db", f"postgresql://u@/db?host={tmp_path}"))
    found = states(examine(str(folder)))
    assert (found["authority"], found["database"]) == ("broken", "broken")
    config.write_text("name = 7")
    with pytest.raises(BadInput, match=r"gateway\.toml: name"):
        list(examine(str(folder)))


def test_a_federation_is_examined(tmp_path: Path, folder: Path) -> None:
    place = tmp_path / "fed"
    federation = setup.init(place, Settings(name="fed", host="127.0.0.1", port=1024, nodes=1, devices=1))
    found = states(examine(str(place)))
    assert (found["federation"], found["key files"]) == ("good", "good")
    assert {found[name] for name in ("superlink", "store", "budget, clock")} == {"look"}
    config = federation.folder / "federation.toml"
    shutil.copytree(folder, place / "store")
    with open_store(place / "store") as store:
        (population,) = store.populations()
        declared = store.declaration(population)
    assert declared is not None
    for name, said in (("another", "has none"), (population, "not signed"), (population, "signed by the")):
        config.write_text(federation.settings.model_copy(update={"population": name}).text())
        if said == "signed by the":
            with open_store(place / "store") as store:
                store.declare(budgets.sign(declared, load(place / "authority").key))
        checks = {each.check: each for each in examine(str(place))}
        good = said == "signed by the"
        assert said in checks["budget"].found
        assert checks["budget"].state == ("good" if good else "broken")
        assert (f"`fa enrol population {name}`" in checks["budget"].mend) != good
    assert checks["store"].state == checks["log"].state == "good"
    (place / "nodes" / "node-00.key").chmod(0o644)
    assert states(examine(str(place)))["key files"] == "broken"


def test_the_check_changes_no_tables(tmp_path: Path, new_database: Callable[[], str]) -> None:
    """Neither in an empty database, nor in a store of another version, which is to be backed up first."""
    place, address = tmp_path / "fed", new_database()
    federation = setup.init(place, Settings(name="fed", store=address, population="homes"))
    for revision in (None, "0000"):
        found = states(examine(str(place)))
        assert (found["store"], found["budget, clock"]) == ("broken", "look")
        database = connect_server(address)
        assert database.revision() == revision
        with database.writing() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32))"))
            connection.execute(text("INSERT INTO alembic_version VALUES ('0000')"))
        database.close()
    assert federation.store == address


def test_a_place_of_nothing_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="neither a store"):
        list(examine(str(tmp_path)))
    with pytest.raises(BadInput, match="no federation"):
        list(examine(str(tmp_path / "missing")))


def test_the_exit_code_says_whether_something_is_broken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "packages", lambda lock: Finding("packages", machine.good("", "").state, ""))
    runner = CliRunner()
    sound = runner.invoke(build(), ["doctor", str(folder), "--json"])
    assert (sound.exit_code, json.loads(sound.output)["good"]) == (0, True)
    (folder / "open.key").write_text("secret")
    (folder / "open.key").chmod(0o644)
    ill = runner.invoke(build(), ["doctor", str(folder), "--json"])
    assert (ill.exit_code, json.loads(ill.output)["good"]) == (2, False)
    shown = runner.invoke(build(), ["doctor", str(folder)])
    assert isinstance(shown.exception, BadInput)
    assert "broken  key files" in shown.output

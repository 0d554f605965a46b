"""What `fa federation init` hands to whom: what it needs, and no key of another's."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from fa_core.cli import build
from fa_core.errors import BadInput
from fa_core.federation.directory import Federation, Settings, open_federation
from fa_core.federation.runs import _config
from fa_core.federation.units import INSTALLED, PROGRAMS, SOCKETS, USERS, compose, owners, units

SECRET_FILES = {
    "superlink": {"tls/server.key"},
    "superexec": {"keys/log.key", "keys/leader.key", "keys/superexec.secret"},
    "witness": {"witness"},
    "helper": {"helper"},
    "node": {"nodes/%.key"},
    "device": {"hubs/%"},
}
"""Of the federation's directory, what one process has and no other may; % is a hub."""

NEEDED = {
    "superlink": {"tls/ca.crt", "tls/server.crt", "state"},
    "superexec": {
        "tls/ca.crt",
        "authority/authority.pub",
        "runs",
        "run",
        "store",
        "leader",
        "keys/helper.json",
    },
    "helper": {"run"},
    "witness": {"authority/authority.pub", "authority/devices.csv", "keys/log.pub", "run"},
    "node": {"tls/ca.crt", "sockets/%"},
    "device": {"sockets/%"},
}
WRITTEN = {
    "superlink": {"state"},
    "superexec": {"store", "leader"},
    "witness": {"witness", "run"},
    "helper": {"helper"},
    "node": set[str](),
    "device": {"hubs/%", "sockets/%"},
}

MEET = {"witness", "superexec", "helper"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "lab"
    app = ["federation", "init", str(place), "--nodes", "2", "--helper", "127.0.0.1:18442"]
    assert CliRunner().invoke(build(), app).exit_code == 0
    file = place / "federation.toml"
    file.write_text(file.read_text().replace('population = ""', 'population = "homes"'))
    return place


def services(folder: Path) -> dict[str, Any]:
    """Return a compose file's services, by process."""
    found: dict[str, Any] = YAML(typ="safe").load(compose(open_federation(folder)))["services"]
    return {name.removesuffix("-00"): service for name, service in found.items()}


def directives(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Return the directives of each unit, by process."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, text in units(open_federation(folder)).items():
        said = found.setdefault(name.removeprefix("unheard-").removesuffix(".service").removesuffix("@"), {})
        for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
            said.setdefault(key, []).append(value)
    return found


def sees(folder: Path) -> Iterator[tuple[str, str, set[str], set[str]]]:
    """Yield for units and containers: process, user, what it sees of the directory and may write."""
    for process, service in services(folder).items():
        mounts = [mount.split(":") for mount in service["volumes"]]
        assert all(source == target for source, target, *_ in mounts)
        assert all(rest in ([], ["ro"]) for _, _, *rest in mounts)
        all_of = {below(source, folder) for source, *_ in mounts}
        yield (
            process,
            service["user"].split(":")[0],
            all_of,
            {below(m[0], folder) for m in mounts if not m[2:]},
        )
    for process, said in directives(folder).items():
        assert said["TemporaryFileSystem"] == [f"{INSTALLED}:ro"]
        writes = {below(path, INSTALLED) for path in said.get("BindPaths", [])}
        reads = {below(path, INSTALLED) for path in said.get("BindReadOnlyPaths", [])}
        yield process, *said["User"], reads | writes, writes


def below(path: str, folder: Path) -> str:
    return Path(path).relative_to(folder).as_posix().replace("node-00", "%").replace("%i", "%")


def overlap(one: str, other: str) -> bool:
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


def test_each_process_sees_its_own_parts_of_the_directory_and_nothing_else(folder: Path) -> None:
    found = list(sees(folder))
    assert sorted(process for process, *_ in found) == sorted([*NEEDED, *NEEDED])
    for process, _, seen, written in found:
        assert seen == NEEDED[process] | SECRET_FILES[process]
        assert written == WRITTEN[process]
        foreign = {file for other in set(SECRET_FILES) - {process} for file in SECRET_FILES[other]}
        assert not any(overlap(one, other) for one in seen for other in foreign)
    for name in ("ca.key", "plan.key", "authority.key"):
        assert name not in compose(open_federation(folder))
        assert name not in "".join(units(open_federation(folder)).values())


def test_no_two_processes_share_a_user_or_a_folder_that_both_may_write(folder: Path) -> None:
    found = list(sees(folder))
    for half in (found[:6], found[6:]):
        assert len({user for _, user, *_ in half}) == len(half)
        for one in half:
            for other in half:
                shared = [(a, b) for a in one[3] for b in other[3] if one is not other and overlap(a, b)]
                assert not shared, (one[0], other[0])
    assert {user for _, user, *_ in found[:6]} == {str(number) for number in USERS.values()}
    assert {user for _, user, *_ in found[6:]} == {f"unheard-{name}" for name in USERS}


def test_units_let_systemd_create_or_own_no_folder(folder: Path) -> None:
    for said in directives(folder).values():
        assert not {"StateDirectory", "RuntimeDirectory", "RestartMaxDelaySec", "RestartSteps"} & said.keys()
        assert said["ProtectSystem"] == ["strict"]
        assert said["RestartSec"] == ["5"]


@pytest.mark.parametrize("of", ["units", "compose"])
def test_the_aggregator_finds_every_file_that_a_runs_configuration_names(folder: Path, of: str) -> None:
    federation = open_federation(folder)
    placed = federation if of == "compose" else replace(federation, folder=INSTALLED)
    found = list(sees(folder))[:6] if of == "compose" else list(sees(folder))[6:]
    aggregator = next(seen for process, _, seen, _ in found if process == "superexec")
    config = {**_config(placed), "plan": str(placed.folder / "runs" / "ab" / "plan.yaml")}
    files = {key: value for key, value in config.items() if str(value).startswith("/")}
    assert files.keys() == {
        "plan", "log-key", "store", "authority", "witness", "helper", "leader", "leader-key",
    }  # fmt: skip
    for file in files.values():
        assert any(Path(below(str(file), placed.folder)).is_relative_to(part) for part in aggregator), file


def test_commands_name_only_files_that_their_process_sees(folder: Path) -> None:
    for found, root in ((services(folder), folder), (directives(folder), INSTALLED)):
        for process, said in found.items():
            command = str(said.get("command") or said["ExecStart"])
            parts = NEEDED[process] | SECRET_FILES[process]
            named = re.findall(rf"{root}/([\w./%-]+)", command)
            assert named
            for path in named:
                assert any(Path(below(f"{root}/{path}", root)).is_relative_to(part) for part in parts), path


def test_only_the_witness_and_those_who_ask_it_share_a_group(folder: Path) -> None:
    groups = {process: service["user"].split(":")[1] for process, service in services(folder).items()}
    assert {process for process, group in groups.items() if group == str(SOCKETS)} == MEET
    assert len(set(groups.values())) == 4
    named = {process: said["Group"] for process, said in directives(folder).items()}
    meet = {process for process, group in named.items() if group == ["unheard-sockets"]}
    assert meet == MEET
    assert not any("SupplementaryGroups" in said for said in directives(folder).values())


def test_containers_have_no_capabilities_and_nothing_of_their_image_to_write(folder: Path) -> None:
    for service in services(folder).values():
        assert (service["cap_drop"], service["read_only"]) == (["ALL"], True)
        assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to other users")
def test_after_the_owners_script_each_user_can_use_its_own_files_and_no_others(
    folder: Path,
) -> None:
    (folder / "hubs" / "node-00").mkdir(parents=True)
    store_key = folder / "hubs" / "node-00" / "store.key"
    store_key.touch(mode=0o600)
    script = re.sub(r"^(user unheard|getent).*\n", "", owners(), flags=re.MULTILINE)
    assert script.count("\n") == owners().count("\n") - len(USERS) - 1
    script_file = folder / "units" / "without-users.sh"
    script_file.write_text(script)
    for _ in range(2):
        subprocess.run(["sh", str(script_file)], check=True, cwd="/")
        for place in ("state/x.pub", "state/x.key", "hubs/node-00/x", "witness/x.pub"):
            if not (folder / place).is_symlink():
                (folder / place).symlink_to(folder / "review" / "plan.key")
    assert (folder / "review" / "plan.key").stat().st_uid == os.geteuid()
    private = {*folder.rglob("*.key"), *folder.rglob("*.secret")}
    assert {file.stat().st_mode & 0o777 for file in private} == {0o600}
    assert (folder / "state" / "superexec.secret").read_bytes() == (
        folder / "keys" / "superexec.secret"
    ).read_bytes()
    for process, service in services(folder).items():
        user, group = (int(number) for number in service["user"].split(":"))
        for mount in service["volumes"]:
            path, writes = Path(mount.split(":")[0]), not mount.endswith(":ro")
            assert allows(
                path, user, group, 0o7 if path.is_dir() and writes else 0o5 if path.is_dir() else 0o4
            )
        for number in {*USERS.values()} - {user}:
            for part in SECRET_FILES[process]:
                assert not allows(folder / part.replace("%", "node-00"), number, number, 0o1)
                assert not allows(folder / part.replace("%", "node-00"), number, number, 0o4)
    # As clients.device.serve demands it, and so that the relay reaches the socket.
    socket = (folder / "sockets" / "node-00").stat()
    assert (socket.st_uid, socket.st_mode & 0o777) == (USERS["device"], 0o755)
    assert store_key.stat().st_uid == USERS["device"]
    run = (folder / "run").stat()
    assert (run.st_uid, run.st_gid, run.st_mode & 0o777) == (USERS["witness"], SOCKETS, 0o750)


def allows(path: Path, user: int, group: int, wanted: int) -> bool:
    """Whether a user without capabilities may do what the bits `wanted` say."""
    facts = path.stat()
    shift = 6 if facts.st_uid == user else 3 if facts.st_gid == group else 0
    return (facts.st_mode >> shift) & wanted == wanted


def test_the_script_is_for_any_shell_and_leaves_out_what_is_not_there(tmp_path: Path) -> None:
    script = tmp_path / "units" / "owners.sh"
    script.parent.mkdir()
    script.write_text(re.sub(r"^(user unheard|getent).*\n", "", owners(), flags=re.MULTILINE))
    subprocess.run(["sh", str(script)], check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["units"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_understands_the_units(folder: Path, tmp_path: Path) -> None:
    here = str(Path(sys.executable).parent)
    for name, text in units(open_federation(folder)).items():
        unit = tmp_path / name
        unit.write_text(text.replace(PROGRAMS, here))
        found = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
        )
        assert (found.returncode, found.stderr) == (0, "")


def test_a_folder_with_signs_that_compose_would_read_is_written_as_it_is(tmp_path: Path) -> None:
    made = Federation(tmp_path / "a $HOME 'b'", Settings(name="lab"))
    command = YAML(typ="safe").load(compose(made))["services"]["witness"]["command"]
    assert command[3].replace("$$", "$") == f"{made.folder}/witness"


def test_private_files_are_the_owners_alone(folder: Path) -> None:
    private = [*folder.rglob("*.key"), *folder.rglob("*.secret")]
    assert {each.relative_to(folder).as_posix() for each in private} == {
        "tls/ca.key", "tls/server.key", "nodes/node-00.key", "nodes/node-01.key", "authority/authority.key",
        "witness/witness.key", "review/plan.key", "keys/log.key", "keys/leader.key", "keys/superexec.secret",
        "helper/helper.key", "helper/ca.key", "helper/server.key",
    }  # fmt: skip
    assert {each.stat().st_mode & 0o777 for each in private} == {0o600}


@pytest.mark.parametrize(
    "store",
    [
        "postgresql://unheard:secret@db/unheard",
        "postgresql://db/unheard?user=a&password=secret",
        "postgresql://db/unheard?sslpassword=secret",
    ],
)
def test_a_database_password_is_refused_where_every_node_would_receive_it(folder: Path, store: str) -> None:
    file = folder / "federation.toml"
    file.write_text(file.read_text().replace('store = "store"', f'store = "{store}"'))
    with pytest.raises(BadInput, match="pgpass") as refused:
        open_federation(folder)
    assert "secret" not in str(refused.value)
    file.write_text(file.read_text().replace(store, "postgresql://unheard@db/unheard"))
    assert open_federation(folder).store == "postgresql://unheard@db/unheard"
    file.write_text(file.read_text().replace("leader/leader.db", store))
    with pytest.raises(BadInput, match="pgpass") as refused:
        open_federation(folder)
    assert "secret" not in str(refused.value)


def test_a_federation_of_before_collects_nothing(folder: Path) -> None:
    file = folder / "federation.toml"
    file.write_text(file.read_text().partition("[collection]")[0])
    federation = open_federation(folder)
    assert federation.helper is None
    assert "helper" not in "".join(units(federation))
    config = _config(federation)
    assert [config[key] for key in ("helper", "leader", "leader-key")] == ["", "", ""]

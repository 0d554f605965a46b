"""What `fa federation init` hands to whom: no process gets a key that is another's."""

from pathlib import Path

import pytest

from fa_core.errors import BadInput
from fa_core.federation.directory import Settings, open_federation
from fa_core.federation.setup import init
from fa_core.federation.units import compose, units


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return init(tmp_path / "lab", Settings(name="lab", nodes=2)).folder


def mounts(text: str, service: str) -> set[str]:
    """Return what a service of a compose file mounts from the federation's directory."""
    block = text.split(f"\n  {service}:\n")[1].split("\n\n")[0]
    return {
        line.split('"')[1].split(":")[0].removeprefix("../")
        for line in block.splitlines()
        if '- "../' in line
    }


def test_each_process_gets_its_own_keys_and_no_folder_of_keys(folder: Path) -> None:
    text = compose(open_federation(folder))
    secret = "keys/superexec.secret"
    assert mounts(text, "superlink") == {"tls/ca.crt", "tls/server.crt", "tls/server.key", secret}
    assert mounts(text, "superexec") == {"tls/ca.crt", "keys/log.key", secret, "runs"}
    assert mounts(text, "witness") == {"witness", "authority/authority.pub", "keys/log.pub"}
    assert mounts(text, "node-00") == {"tls/ca.crt", "nodes/node-00.key"}
    for name in ("ca.key", "plan.key", "authority.key"):
        assert name not in text
        assert name not in "".join(units(open_federation(folder)).values())


def test_private_files_are_the_owners_alone(folder: Path) -> None:
    private = [*folder.rglob("*.key"), *folder.rglob("*.secret")]
    assert {each.relative_to(folder).as_posix() for each in private} == {
        "tls/ca.key", "tls/server.key", "nodes/node-00.key", "nodes/node-01.key", "authority/authority.key",
        "witness/witness.key", "review/plan.key", "keys/log.key", "keys/superexec.secret",
    }  # fmt: skip
    assert {each.stat().st_mode & 0o777 for each in private} == {0o600}


@pytest.mark.parametrize(
    "store", ["postgresql://unheard:secret@db/unheard", "postgresql://db/unheard?user=a&password=secret"]
)
def test_a_database_password_is_not_written_where_every_node_would_be_told_it(
    folder: Path, store: str
) -> None:
    file = folder / "federation.toml"
    file.write_text(file.read_text().replace('store = "store"', f'store = "{store}"'))
    with pytest.raises(BadInput, match="pgpass") as refused:
        open_federation(folder)
    assert "secret" not in str(refused.value)
    file.write_text(file.read_text().replace(store, "postgresql://unheard@db/unheard"))
    assert open_federation(folder).store == "postgresql://unheard@db/unheard"

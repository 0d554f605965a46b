"""The ServerApp of a deployment: the witness is another process, and only signed plans are run."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clients.app import relay
from clients.evaluate import cohort_of_fleet, seeded_randomness
from clients.party import SimulatedFleet, pins_of
from fa_core.errors import BadInput, Refused
from fa_core.flower.transport import PARTITION, LocalGrid
from fa_core.plan import SignedPlan, load
from fa_core.privacy.ledger import DEFAULT_POLICIES
from fa_core.rounds.app import KEYS, main
from fa_core.rounds.keys import local_keys
from fa_core.rounds.progress_events import Ended, parse
from fa_core.store import Declaration, open_store
from fa_core.trust.enrolment import Authority, read_key, write_key
from fa_core.trust.witness import Witness
from fa_core.trust.witness_service import WitnessServer
from tests.rounds.small import SEED, devices_table, wake_table, write_plan

DEVICES = 52
RELEASE = "5e" * 16


@pytest.fixture
def config(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A run configuration, with the witness listening."""
    keys, authority = local_keys(tmp_path / "keys"), Authority.generate()
    plan = write_plan(tmp_path, groups="[[]]")
    (tmp_path / "small.yaml.sig").write_text(SignedPlan.of(load(plan), keys.plan).text())
    (tmp_path / "authority.pub").write_text(authority.public_key.hex() + "\n")
    write_key(tmp_path / "authority.key", authority.key)
    log = keys.log.public_key().public_bytes_raw()
    witness = Witness(keys.witness, authority.public_key, tmp_path / "journal", log)
    with WitnessServer(witness, tmp_path / "witness.sock") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield {
            "plan": str(plan),
            "release": RELEASE,
            "population": "small",
            "until": "",
            "simulated": False,
            "synthetic": False,
            "engine": "lab",
            "nodes": DEVICES,
            "devices": DEVICES,
            "deadline": 60.0,
            "store": str(tmp_path / "store"),
            "log-key": str(tmp_path / "keys" / "log.key"),
            "authority": str(tmp_path / "authority.pub"),
            "witness": str(tmp_path / "witness.sock"),
        }
        server.shutdown()
        thread.join()


def declare(config: dict[str, Any]) -> None:
    with open_store(config["store"]) as store:
        store.declare(Declaration("small", "zcdp", DEFAULT_POLICIES["zcdp"], datetime.now(UTC)))


def grid_of(folder: Path) -> LocalGrid:
    """Return a Grid of simulated devices that trust the keys in `folder`."""
    keys, authority = local_keys(folder / "keys"), Authority(read_key(folder / "authority.key"))
    public = [key.public_key().public_bytes_raw() for key in (keys.plan, keys.log, keys.witness)]
    cohort = cohort_of_fleet(devices_table(DEVICES), {"wake_events": wake_table(DEVICES)})
    pins = pins_of(*public, authority.public_key)
    fleet = SimulatedFleet(cohort, pins, authority, seeded_randomness(SEED))
    return LocalGrid(relay(lambda node: {0: fleet.device(int(node[PARTITION]))}), DEVICES)


def test_a_signed_plan_is_released_under_the_federations_name(config: dict[str, Any], tmp_path: Path) -> None:
    declare(config)
    main(grid_of(tmp_path), config)
    with open_store(tmp_path / "store") as store:
        found = store.find("latest")
        assert (found.engine, found.simulated, found.counted) == ("lab", False, DEVICES)
        assert store.verify_log() == store.verify_ledger() == []


def test_real_devices_under_a_name_without_a_budget_are_not_asked(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(config)
    with pytest.raises(Refused, match="`fa ledger declare another` gives it one"):
        main(grid_of(tmp_path), config | {"population": "another"})
    ended = parse(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(ended, Ended)
    assert ended.code == 3
    with open_store(tmp_path / "store") as store:
        assert not store.failures()
        assert not store.charges("another")
    main(grid_of(tmp_path), config | {"population": "another", "simulated": True})


def test_an_unsigned_plan_is_not_run(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "small.yaml.sig").unlink()
    with pytest.raises(BadInput, match="nobody signed it"):
        main(grid_of(tmp_path), config)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_entry_of_the_configuration_is_named(
    config: dict[str, Any], tmp_path: Path, key: str
) -> None:
    del config[key]
    with pytest.raises(BadInput, match=f"lacks {key}"):
        main(LocalGrid(relay(lambda node: {}), 0), config)

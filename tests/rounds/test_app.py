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
from fa_core.rounds.app import KEYS, main
from fa_core.rounds.keys import give_budgets, local_keys
from fa_core.rounds.progress_events import Ended, parse
from fa_core.store import open_store
from fa_core.trust.enrolment import Authority
from fa_core.trust.witness import Witness
from fa_core.trust.witness_service import WitnessServer
from tests.collection.setup import plan_text as collected
from tests.rounds.small import SEED, devices_table, wake_table, write_plan

DEVICES = 52
RELEASE = "5e" * 16


@pytest.fixture
def config(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A run configuration, with the witness listening."""
    keys = local_keys(tmp_path / "keys")
    authority = keys.authority
    plan = write_plan(tmp_path, groups="[[]]")
    (tmp_path / "small.yaml.sig").write_text(SignedPlan.of(load(plan), keys.plan).text())
    (tmp_path / "authority.pub").write_text(authority.public_key.hex() + "\n")
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
            "helper": "",
            "leader": "",
            "leader-key": "",
            "window": 0.0,
            "enough": 0,
        }
        server.shutdown()
        thread.join()


def declare(config: dict[str, Any], population: str, signer: Authority) -> None:
    """Give a population the default budgets, signed by `signer`."""
    with open_store(config["store"]) as store:
        give_budgets(store, signer, population, "zcdp", datetime.now(UTC))


def grid_of(folder: Path) -> LocalGrid:
    """Return a Grid of simulated devices that trust the keys in `folder`."""
    keys = local_keys(folder / "keys")
    public = [key.public_key().public_bytes_raw() for key in (keys.plan, keys.log, keys.witness)]
    cohort = cohort_of_fleet(devices_table(DEVICES), {"wake_events": wake_table(DEVICES)})
    pins = pins_of(*public, keys.authority.public_key)
    fleet = SimulatedFleet(cohort, pins, keys.authority, "small", seeded_randomness(SEED))
    return LocalGrid(relay(lambda node: {0: fleet.device(int(node[PARTITION]))}), DEVICES)


def test_a_signed_plan_is_released_under_the_federations_name(config: dict[str, Any], tmp_path: Path) -> None:
    declare(config, "small", local_keys(tmp_path / "keys").authority)
    main(grid_of(tmp_path), config)
    with open_store(tmp_path / "store") as store:
        found = store.find("latest")
        assert (found.engine, found.simulated, found.counted) == ("lab", False, DEVICES)
        assert store.verify_log() == store.verify_ledger() == []


@pytest.mark.parametrize("simulated", [False, True])
@pytest.mark.parametrize("budgets", ["of another population", "signed by the aggregator"])
def test_no_device_is_asked_without_budgets_that_the_authority_signed(
    config: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    simulated: bool,
    budgets: str,
) -> None:
    """Row 1 of the review: a run's configuration that says `simulated` changes nothing of that."""
    authority = local_keys(tmp_path / "keys").authority
    if budgets == "of another population":
        declare(config, "another", authority)
    else:
        declare(config, "small", Authority.generate())
    with pytest.raises(
        Refused, match=r"population 'small' has no budgets .* `fa enrol population` signs them"
    ):
        main(grid_of(tmp_path), config | {"simulated": simulated})
    ended = parse(capsys.readouterr().out.splitlines()[-1])
    assert isinstance(ended, Ended)
    assert ended.code == 3
    with open_store(tmp_path / "store") as store:
        assert not store.failures()
        assert not store.charges("small")


def test_an_unsigned_plan_is_not_run(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "small.yaml.sig").unlink()
    with pytest.raises(BadInput, match="nobody signed it"):
        main(grid_of(tmp_path), config)
    assert not (tmp_path / "store").exists()


def test_without_a_helper_two_aggregators_form_no_sum(config: dict[str, Any], tmp_path: Path) -> None:
    plan = Path(config["plan"])
    plan.write_text(collected("sum: two_aggregators, min_cohort: 50"))
    Path(f"{plan}.sig").write_text(SignedPlan.of(load(plan), local_keys(tmp_path / "keys").plan).text())
    with pytest.raises(BadInput, match="names no helper"):
        main(grid_of(tmp_path), config)


@pytest.mark.parametrize("key", KEYS)
def test_a_missing_entry_of_the_configuration_is_named(
    config: dict[str, Any], tmp_path: Path, key: str
) -> None:
    del config[key]
    with pytest.raises(BadInput, match=f"lacks {key}"):
        main(LocalGrid(relay(lambda node: {}), 0), config)

"""Asks devices what a training plan asks, on any engine: a fleet directory here, or a federation."""

from pathlib import Path
from typing import TYPE_CHECKING

from fa_core.errors import BadInput
from fa_core.plan import TrainPlan, load
from fa_core.values import HERE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from clients.models.head import Head
    from fa_core.store import Store


def place_of(engine: str, store: str | None) -> str:
    """Return where the releases and models are: a federation has a store of its own."""
    from fa_core.federation.directory import open_federation
    from fa_core.store import DEFAULT

    return (store or DEFAULT) if engine in HERE else open_federation(Path(engine)).store


def signing_key(engine: str, place: str, key: Path | None) -> "Ed25519PrivateKey":
    """Return the key that signs a candidate. Raises BadInput where there is none: nobody was asked then."""
    from fa_core.federation.directory import open_federation
    from fa_core.rounds.keys import keys_folder, local_keys
    from fa_core.trust.enrolment import read_key

    if key is None and engine in HERE:
        return local_keys(keys_folder(place)).plan
    own = key or open_federation(Path(engine)).folder / "review" / "plan.key"
    if not own.exists():
        raise BadInput(f"{own} is not there, so nobody could sign the candidate; --key names a plan key")
    return read_key(own)


def asked(
    file: Path, engine: str, fleet: Path | None, place: str, store: str | None, until: str | None
) -> str:
    """Run a plan and return the id of its release. Nothing is charged where it cannot do.

    Args:
        place: the store that has the base. store: as it was given; a federation has none.
        until: end of the window, for the engine `tables`.
    """
    if engine in HERE:
        return _here(file, engine, fleet, place, until)
    from fa_core.cli.run import on_federation
    from fa_core.federation import runs
    from fa_core.federation.directory import open_federation

    _require(file, runs.devices(open_federation(Path(engine))), place)
    found = on_federation(engine, file, None, (fleet, store, until))[1]
    assert found is not None, "a training plan's round has an end"
    return found.release.id


def base_of(store: "Store", plan: TrainPlan) -> "Head":
    """Return the head that a plan adapts, from the registry. Raises BadInput where it is not what the plan
    says."""
    from clients.models.formats import content
    from clients.models.head import Head
    from fa_core.rollout import models

    try:
        found = models.find(store, plan.base.sha256).manifest
    except BadInput:
        raise BadInput(
            f"the base {plan.base.version} {plan.base.sha256[:12]} is not in this store; `fa model add` puts "
            "it there"
        ) from None
    head = content(found, store.artefact(found.sha256))
    same = (found.wake_word, found.version) == (plan.base.wake_word, plan.base.version)
    if not isinstance(head, Head) or found.kind != "head" or not same:
        raise BadInput(f"{found.sha256[:12]} is the {found.kind} {found.version}, not the plan's base")
    return head


def _here(file: Path, engine: str, fleet: Path | None, place: str, until: str | None) -> str:
    from clients.fleet.tables import parse_until, read_fleet
    from fa_core.engines.launch import Order, launch

    if fleet is None:
        raise BadInput("which devices? --fleet DIR, or --release ID for a release that is there")
    end = None if until is None else parse_until(until, "--until")
    _require(file, read_fleet(fleet).devices.num_rows, place)
    return launch(Order(file, fleet, engine, None, place, end))[0].id


def _require(file: Path, devices: int, place: str) -> None:
    """Refuse a fleet that is too small, and a store without the base."""
    from fa_core.store import open_store
    from fa_core.training.preview import require_blocks, sizes_of

    plan = load(file)
    assert isinstance(plan, TrainPlan)
    require_blocks(plan, sizes_of(plan, devices, {}))
    with open_store(place) as opened:
        base_of(opened, plan)

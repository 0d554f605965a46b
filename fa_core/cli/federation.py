"""`fa federation`: what an operator needs, and a lab of real processes on one machine."""

import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fa_core.cli import render
from fa_core.errors import BadInput, problems
from fa_core.federation.directory import Federation, Settings, node_name, open_federation
from fa_core.federation.lab import Lab, find_lab, write_lab
from fa_core.rounds.keys import give_budgets
from fa_core.store import open_store
from fa_core.trust.enrolment import load

if TYPE_CHECKING:
    from fa_core.federation.setup import State

app = typer.Typer(
    help="Make a federation's keys and units; start, look at and stop a lab of it.", no_args_is_help=True
)

HELPER_FILE: Final = "keys/helper.json"
"""Where the leader has the file of a helper that is made with the federation."""

Directory = Annotated[Path, typer.Argument(help="The federation's directory.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def init(
    directory: Directory,
    name: Annotated[str, typer.Option(help="What releases call it; the directory's name by default.")] = "",
    host: Annotated[str, typer.Option(help="Name or address of the SuperLink.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=1024, max=65000, help="Its port; a lab uses those after it too.")
    ] = 18443,
    nodes: Annotated[int, typer.Option(min=1, max=200, help="For how many SuperNodes to make keys.")] = 3,
    helper: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            show_default=False,
            help="Make a helper too, which listens there: for plans with `sum: two_aggregators`.",
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make keys, certificates, settings, systemd units and a compose file. What is private is the owner's."""
    from pydantic import ValidationError

    from fa_core.federation.directory import Collecting
    from fa_core.federation.setup import init as make

    if helper:
        _check_address(helper)
    try:
        settings = Settings(
            name=name or directory.resolve().name,
            host=host,
            port=port,
            nodes=nodes,
            devices=nodes,
            collection=Collecting(helper=HELPER_FILE if helper else ""),
        )
    except ValidationError as error:
        raise BadInput(problems(error)[0]) from None
    federation = make(directory, settings)
    if helper:
        _make_helper(federation, helper)
    if as_json:
        typer.echo(json.dumps({"federation": str(federation.folder), "name": settings.name, "nodes": nodes}))
        return
    typer.echo(f"{directory}: a federation of {nodes} nodes, SuperLink at {federation.address}")
    typer.echo(f"a lab of it: `fa federation up {directory} --fleet FLEETDIR`")


def _check_address(helper: str) -> None:
    """Raise BadInput for anything but HOST:PORT: before anything is made."""
    from fa_core.gateway.settings import address

    try:
        host, port = address(helper)
    except ValueError:
        host, port = "", 0
    if not host or not 0 < port < 1 << 16:
        raise BadInput(f"--helper: {helper!r} is not HOST:PORT, as the leader connects to it")


def _make_helper(federation: Federation, name: str) -> None:
    """Make a helper beside the witness, and give the leader its file."""
    from fa_core.helper_service.settings import ADDRESS
    from fa_core.helper_service.setup import init as make

    folder = federation.folder
    trusted = {
        each: folder / place / f"{each}.pub"
        for each, place in (
            ("authority", "authority"),
            ("log", "keys"),
            ("witness", "witness"),
            ("leader", "keys"),
        )
    }
    # From the helper's folder: the directory may be elsewhere once it is installed.
    made = make(federation.helper_folder, name, trusted, Path("..") / "run" / "witness.sock")
    shutil.copyfile(made.folder / ADDRESS, folder / HELPER_FILE)


@app.command()
def up(
    directory: Directory,
    nodes: Annotated[int | None, typer.Option(min=1, max=200, help="SuperNodes, each with a hub.")] = None,
    devices: Annotated[int | None, typer.Option(min=1, max=2000, help="Devices behind each node.")] = None,
    fleet: Annotated[
        Path | None,
        typer.Option(help="A fleet directory: fills the devices' stores, once.", show_default=False),
    ] = None,
    ample: Annotated[
        bool,
        typer.Option(
            "--ample",
            help="Devices without limits of their own: no default budget and policy, as tests need.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a lab on this machine: witness, SuperLink, SuperExec, hubs of encrypted devices, SuperNodes."""
    from fa_core.federation import setup

    federation = open_federation(directory)
    _make_lab(federation, nodes, devices, fleet, ample)
    _show(federation, setup.up(federation), as_json)


@app.command()
def status(directory: Directory, as_json: AsJson = False) -> None:
    """Show the processes of a lab, and whether a federation's nodes are online."""
    from fa_core.federation import setup

    federation = open_federation(directory)
    _show(federation, setup.status(federation), as_json)


@app.command()
def down(directory: Directory) -> None:
    """Stop a lab. Stores, keys and what was released stay."""
    from fa_core.federation import setup

    federation = open_federation(directory)
    typer.echo(f"{directory}: {'stopped' if setup.down(federation) else 'was not up'}")


def _make_lab(
    federation: Federation, nodes: int | None, devices: int | None, place: Path | None, ample: bool
) -> None:
    """Make the hubs of a lab from a fleet, where there are none yet."""
    from fa_core.federation.setup import make_node_keys

    lab = find_lab(federation)
    if lab is not None:
        asked = (nodes or lab.nodes, devices or lab.devices)
        if asked != (lab.nodes, lab.devices) or place is not None or ample:
            raise BadInput(
                f"{federation.folder} already has a lab of {lab.nodes} nodes, {lab.devices} devices each: "
                "start it without options, or make another federation"
            )
        return
    if place is None:
        raise BadInput(
            f"{federation.folder} has no devices yet: --fleet FLEETDIR fills them, "
            "and `fa fleet make` makes a fleet"
        )
    lab = _fill(federation, nodes or federation.settings.nodes, devices, place, ample)
    make_node_keys(federation, lab.nodes)
    write_lab(federation, lab)


def _fill(federation: Federation, nodes: int, devices: int | None, place: Path, ample: bool) -> Lab:
    from clients.device.lab_hub import Hub, Trusted, make_hub
    from clients.evaluate import cohort_of_fleet
    from clients.fleet.tables import read_fleet
    from fa_core.collection.exchange import read_address

    fleet = read_fleet(place)
    each = devices or fleet.devices.num_rows // nodes
    if each < 1 or nodes * each > fleet.devices.num_rows:
        raise BadInput(
            f"{place} has {fleet.devices.num_rows} devices; {nodes} nodes of {max(each, 1)} need "
            f"{nodes * max(each, 1)}"
        )
    cohort, folder, now = cohort_of_fleet(fleet.devices, fleet.tables), federation.folder, datetime.now(UTC)
    public = {
        name: (folder / f"{path}.pub").read_text(encoding="ascii").strip()
        for name, path in (
            ("plan", "review/plan"),
            ("log", "keys/log"),
            ("witness", "witness/witness"),
            ("authority", "authority/authority"),
        )
    }
    helper = None if federation.helper is None else read_address(federation.helper).public_key.hex()
    hubs = [
        Hub(federation.hub(number), federation.hub_socket(number), number * each, (number + 1) * each, ample)
        for number in range(nodes)
    ]
    authority, population = folder / "authority", fleet.population
    rest = (cohort, Trusted(**public, helper=helper), authority, population, now.replace(microsecond=0))
    workers = min(len(os.sched_getaffinity(0)), nodes)
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        for done in [pool.submit(make_hub, hub, *rest) for hub in hubs]:
            done.result()
    before = os.umask(0o077)  # a store that is made here is the aggregator's alone
    try:
        with open_store(federation.store) as store:
            give_budgets(store, load(authority), population, "zcdp", now)
    finally:
        os.umask(before)
    return Lab(nodes, each, population, fleet.until.isoformat(), fleet.synthetic)


def _collections(federation: Federation) -> list[dict[str, Any]]:
    """Return what a federation collects now: public counts."""
    from fa_core.federation.collections import open_collections

    return [
        {
            "release": each.run.release,
            "plan": each.run.plan,
            "closes": each.closes.isoformat(),
            "enough": each.run.enough or None,
            "arrived": each.tally.arrived if each.tally else 0,
            "counted": each.tally.counted if each.tally else 0,
            "refused": {code.value: count for code, count in each.tally.refused.items()}
            if each.tally
            else {},
        }
        for each in open_collections(federation)
    ]


def _show_collections(found: list[dict[str, Any]]) -> None:
    if not found:
        return
    rows = [
        (
            each["release"],
            each["plan"],
            str(each["arrived"]),
            str(each["counted"]),
            str(sum(each["refused"].values())),
            datetime.fromisoformat(each["closes"]).strftime("%Y-%m-%d %H:%M:%S UTC"),
            "" if each["enough"] is None else str(each["enough"]),
        )
        for each in found
    ]
    heads = ("open collection", "plan", "arrived", "counted", "refused", "closes", "enough")
    render.table("", heads, rows)


def _show(federation: Federation, state: "State", as_json: bool) -> None:
    collections = _collections(federation)
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "federation": str(federation.folder),
                    "ready": state.ready,
                    **asdict(state),
                    "collections": collections,
                },
                indent=2,
            )
        )
        return
    _show_state(federation, state)
    _show_collections(collections)


def _show_state(federation: Federation, state: "State") -> None:
    if not state.up:
        typer.echo(f"{federation.settings.name} is not up: {state.problem}")
        return
    lab = find_lab(federation)
    if lab is None:
        title = f"{federation.settings.name} at {federation.address}"
        render.table(title, ("node", "SuperLink says"), sorted(state.nodes.items()))
        return
    rows = []
    for name, process in state.processes.items():
        pid = "" if process["pid"] is None else str(process["pid"])
        ended = "" if process["last_exit"] is None else str(process["last_exit"])
        rows.append(
            (name, pid or "waits to start", str(process["restarts"]), ended, state.nodes.get(name, ""))
        )
    devices = f", {lab.nodes * lab.devices:,} devices" if lab else ""
    title = f"{federation.settings.name} at {federation.address}{devices}"
    render.table(title, ("process", "id", "restarts", "last exit", "SuperLink says"), rows)
    if state.problem:
        typer.echo(state.problem)
    others = sorted(
        set(state.nodes) - set(state.processes) - {node_name(n) for n in range(lab.nodes if lab else 0)}
    )
    for name in others:
        typer.echo(f"{name or 'a node without a name'}: {state.nodes[name]}, not of this lab")
    typer.echo("ready" if state.ready else "not ready yet")

"""Runs on a federation: launching one, following it, and finding out how it ended.

A launched run is recorded in `runs/RELEASE/`: the plan, its signature, and Flower's number of the run, so one
may detach from a run and attach again. How it ended is read from the store alone; what the ServerApp reports
is shown, and trusted only for a run that never got as far as the ledger.

Where two aggregators form the sum, a release is collected by several runs of Flower's, one short drain each:
`number` is that of the last one. Whoever comes starts the next (`drain`), if none is going on.
"""

import fcntl
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fa_core.database.connection import Unavailable
from fa_core.errors import BadInput, RoundFailed
from fa_core.federation import bundle
from fa_core.federation.directory import CONFIG, Federation
from fa_core.federation.lab import find_lab
from fa_core.flower.superlink import SuperLink, Unanswered
from fa_core.plan import Plan, SignedPlan, canonical, load
from fa_core.privacy.ledger import Charge
from fa_core.rounds.keys import signature_beside
from fa_core.rounds.outcome import STORE_SECONDS
from fa_core.rounds.progress import Event
from fa_core.rounds.progress_events import Ended, parse
from fa_core.rounds.run import require_enough
from fa_core.store import Store, open_store
from fa_core.trust.enrolment import read_key
from fa_core.values import Estimates, Release

RETRY_SECONDS = 300.0
"""Seconds for which a SuperLink that does not answer is retried: it may be restarting."""

LOOK_EVERY = 1.0
LEAST_PREFIX = 4


@dataclass(frozen=True, slots=True)
class Collected:
    """How a sum by two aggregators is collected: for how many hours from its charge on, and how many counted
    end it before, 0 for none."""

    hours: float
    enough: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was launched: id of the coming release, Flower's number, whose budget, and when.

    `hours` and `enough`: as of `Collected`; of a round 0.
    """

    release: str
    number: int
    plan: str
    population: str
    at: str
    hours: float = 0.0
    enough: int = 0

    @property
    def collects(self) -> bool:
        """Whether two aggregators form the sum."""
        return self.hours > 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A release as it is stored, and whether its voices are synthetic."""

    release: Release
    estimates: Estimates
    synthetic: bool


def connect(federation: Federation) -> SuperLink:
    """Return a connection to the federation's SuperLink. Raises BadInput where there are no certificates."""
    try:
        return SuperLink(federation.address, federation.certificate.read_bytes())
    except OSError as error:
        raise BadInput(f"{federation.certificate} cannot be read: {error.strerror}") from None


def launch(federation: Federation, file: Path, hours: float | None = None, enough: int | None = None) -> Run:
    """Start a run of the plan in `file` on a federation that is up.

    `hours` and `enough` are for a plan whose sum two aggregators form: for how long reports are taken, and
    how many counted end it before; None for what the federation says, and for none.
    Raises BadInput, Refused or Unanswered; then nothing was started, unless Unanswered says otherwise.
    """
    plan = load(file)
    how = _collected(federation, plan, hours, enough)
    config = _config(federation)
    require_enough(plan, int(config["devices"]))
    signed = _signed(federation, file, plan)
    with connect(federation) as link:
        try:
            settle(federation, link)
        except Unanswered as error:
            raise Unanswered(f"{error}; `fa federation up {federation.folder}` starts a lab of it") from None
        release = secrets.token_hex(16)
        folder = federation.folder / "runs" / release
        folder.mkdir(mode=0o700, parents=True)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        run = Run(release, 0, plan.name, str(config["population"]), at, how.hours, how.enough)
        kept = folder / "plan.yaml"
        kept.write_bytes(file.read_bytes())
        kept.with_name("plan.json").write_bytes(canonical(plan))
        kept.with_name("plan.yaml.sig").write_text(signed.text(), encoding="utf-8")
        if run.collects:  # before it is started: where the answer is lost, the next drain goes on with it
            _write(federation, run)
        try:
            number = link.start(bundle.files(), {**config, **_about(folder, run)})
        except Unanswered as error:
            raise Unanswered(
                f"{error}; whether the run was started is not known: if it was, `fa results show {release}` "
                "will have it"
            ) from None
    run = replace(run, number=number)
    _write(federation, run)
    return run


def drain(federation: Federation, run: Run) -> Run:
    """Start the next drain of a collection, unless one is going on; return the run to follow.

    Two who come at once start one: a file in the run's folder is locked meanwhile.
    Raises Unanswered where the SuperLink does not answer.
    """
    folder = federation.folder / "runs" / run.release
    with (folder / "drain.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = _read(folder / "run.json")
        with connect(federation) as link:
            state = link.run(run.number)
            if state is not None and state.status != "finished":
                return run
            config = {**_config(federation), **_about(folder, run)}
            run = replace(run, number=link.start(bundle.files(), config))
        _write(federation, run)
    return run


def launched(federation: Federation) -> list[Run]:
    """Return the runs that were launched, oldest first."""
    found = []
    for file in (federation.folder / "runs").glob("*/run.json"):
        found.append(_read(file))
    return sorted(found, key=lambda run: run.at)


def _read(file: Path) -> Run:
    try:
        return Run(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise BadInput(f"{file} is damaged; remove its folder to forget the run") from None


def _write(federation: Federation, run: Run) -> None:
    file = federation.folder / "runs" / run.release / "run.json"
    new = file.with_suffix(".new")
    new.write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
    new.replace(file)


def find(federation: Federation, text: str) -> Run:
    """Return the run meant by `latest`, a release's id or its first digits. Raises BadInput otherwise."""
    runs = launched(federation)
    if text == "latest" and runs:
        return runs[-1]
    found = [run for run in runs if run.release.startswith(text)] if len(text) >= LEAST_PREFIX else []
    if len(found) != 1:
        many = "several runs begin" if found else "no run begins"
        raise BadInput(
            f"{many} with {text!r} on {federation.settings.name}; `latest` is the last one launched"
        )
    return found[0]


def follow(federation: Federation, run: Run, report: Callable[[Event], None]) -> Ended | None:
    """Call `report` with a run's progress until Flower says that it is over; return the end it reported.

    Tolerates a SuperLink that restarts. Raises Unanswered where none answers for `RETRY_SECONDS`.
    """
    ended, after, missing, lines = None, 0.0, None, _Lines()
    while True:
        try:
            with connect(federation) as link:
                for at, text in link.log(run.number, after):
                    after, missing = at, None
                    for line in lines.of(text):
                        event = parse(line)
                        if isinstance(event, Ended):
                            ended = event
                        elif event is not None:
                            report(event)
                state = link.run(run.number)
                missing = None
        except Unanswered:
            missing = missing or time.monotonic()
            if time.monotonic() - missing > RETRY_SECONDS:
                raise
        else:
            if state is None or state.status == "finished":
                return ended
        time.sleep(LOOK_EVERY)


def outcome(federation: Federation, run: Run, ended: Ended | None) -> Outcome | None:
    """Return what a run released, once it is over; None for a collection that is still open. Raises the error
    that it ended with.

    A run that was charged and whose ServerApp died without an end is a failure, and is recorded as one.
    Tolerates a store that restarts. Raises Unavailable where it stays unavailable for `STORE_SECONDS`.
    """
    end = time.monotonic() + STORE_SECONDS
    while True:
        try:
            return _outcome(federation, run, ended)
        except Unavailable:
            if time.monotonic() >= end:
                raise
        time.sleep(LOOK_EVERY)


def _outcome(federation: Federation, run: Run, ended: Ended | None) -> Outcome | None:
    with open_store(federation.store, create=ended is None or ended.code == 0) as store:
        entry = entry_of(store, run)
        if entry is not None:
            return entry
        reason = failure_of(store, run)
        if reason is None and charge_in(store, run) is not None:
            if run.collects:
                return None
            reason = _write_off(federation, store, run)
    if reason is not None:
        raise RoundFailed(reason)
    error = ended.error() if ended else None
    raise error or RoundFailed(
        "the ServerApp ended without a report before anything was charged; nothing was released "
        f"({federation.folder / 'log' / 'superexec.log'} may say why)"
    )


def settle(federation: Federation, link: SuperLink) -> list[Run]:
    """Write off every run that was charged, is over, and has no end in the store; return those.

    A collection that is open is none of them: the next drain goes on with it.
    """
    lost = []
    for run in launched(federation):
        if settled(federation, run).exists():
            continue
        if run.collects and not run.number:  # its start was not answered; it may yet be charged
            continue
        state = link.run(run.number)
        if state is not None and state.status != "finished":
            continue
        with open_store(federation.store) as store:
            ended = entry_of(store, run) is not None or failure_of(store, run) is not None
            if not ended and charge_in(store, run) is not None:
                if run.collects:
                    continue
                _write_off(federation, store, run)
                lost.append(run)
        settled(federation, run).touch()
    return lost


def settled(federation: Federation, run: Run) -> Path:
    """Return the file that says that a run has its end in the store, or never will."""
    return federation.folder / "runs" / run.release / "settled"


def devices(federation: Federation) -> int:
    """Return how many devices a federation is said to have, a public number. Raises BadInput as `launch`."""
    return int(_config(federation)["devices"])


def _write_off(federation: Federation, store: Store, run: Run) -> str:
    # The bytes as launched: parsed again, the plan might have expired since.
    plan = (federation.folder / "runs" / run.release / "plan.json").read_bytes()
    reason = "the ServerApp died or was stopped during the round; nothing was released"
    store.fail(run.release, plan, run.population, "unknown", reason, datetime.now(UTC))
    return reason


def entry_of(store: Store, run: Run) -> Outcome | None:
    try:
        entry = store.find(run.release)
    except BadInput:
        return None
    return Outcome(*store.read(entry), entry.synthetic)


def failure_of(store: Store, run: Run) -> str | None:
    found = [each.reason for each in store.failures(limit=1000) if each.release == run.release]
    return found[0] if found else None


def charge_in(store: Store, run: Run) -> Charge | None:
    found = [charge for charge in store.charges(run.population) if charge.release == run.release]
    return found[0] if found else None


def _collected(federation: Federation, plan: Plan, hours: float | None, enough: int | None) -> Collected:
    """Return how a plan's sum is collected. Raises BadInput for what does not go together."""
    if plan.privacy.sum != "two_aggregators":
        if hours is not None or enough is not None:
            raise BadInput(
                f"--window and --enough are for plans with `sum: two_aggregators`; {plan.name} has a round of"
                " stages, each with a deadline"
            )
        return Collected(0.0)
    if federation.helper is None:
        raise BadInput(
            f"{plan.name} asks for a sum by two aggregators, and {federation.folder / CONFIG} names no"
            " helper: `helper` in its section [collection] is the file that `fa helper init` makes"
        )
    if enough is not None and enough < plan.privacy.min_cohort:
        raise BadInput(
            f"--enough {enough} is less than {plan.privacy.min_cohort}, the `min_cohort` of {plan.name}: so"
            " few are not summed"
        )
    return Collected(federation.settings.collection.hours if hours is None else hours, enough or 0)


def _about(folder: Path, run: Run) -> dict[str, str | float | int]:
    """Return the part of a run's configuration that is of one release."""
    kept = str(folder / "plan.yaml")
    return {"plan": kept, "release": run.release, "window": run.hours, "enough": run.enough}


def _signed(federation: Federation, file: Path, plan: Plan) -> SignedPlan:
    """Return the signature beside the plan, or one by the federation's own key where it is here."""
    signed = signature_beside(file, plan)
    if signed is not None:
        return signed
    key = federation.folder / "review" / "plan.key"
    if not key.exists():
        raise BadInput(f"{file}: nobody signed it, so no device would answer; `fa plan sign` does")
    return SignedPlan.of(plan, read_key(key))


def _config(federation: Federation) -> Mapping[str, str | int | float | bool]:
    settings, lab = federation.settings, find_lab(federation)
    if lab is None and not settings.population:
        raise BadInput(f"{federation.folder / 'federation.toml'}: population: say whose budget is charged")
    return {
        "population": lab.population if lab else settings.population,
        "until": lab.until if lab else "",
        "simulated": lab is not None,
        "synthetic": lab.synthetic if lab else False,
        "engine": settings.name,
        "nodes": lab.nodes if lab else settings.nodes,
        "devices": lab.nodes * lab.devices if lab else settings.devices,
        "deadline": settings.deadline,
        "store": federation.store,
        "log-key": str(federation.folder / "keys" / "log.key"),
        "authority": str(federation.folder / "authority" / "authority.pub"),
        "witness": str(federation.witness_socket),
        "helper": str(federation.helper or ""),
        "leader": federation.leader if federation.helper else "",
        "leader-key": str(federation.leader_key) if federation.helper else "",
    }


class _Lines:
    """Splits text that arrives in pieces into lines."""

    def __init__(self) -> None:
        self._rest = ""

    def of(self, text: str) -> list[str]:
        """Return the lines that are whole now."""
        *lines, self._rest = (self._rest + text).split("\n")
        return lines


def tolerance(federation: Federation, file: Path) -> str:
    """Say how many whole nodes a plan's `dropout` and `corrupt` tolerate: a hub's devices fail together."""
    privacy, config = load(file).privacy, _config(federation)
    nodes, devices = int(config["nodes"]), int(config["devices"])
    if privacy.sum == "two_aggregators":
        return f"{devices:,} devices behind {nodes} nodes; each uploads once, whenever it is there"
    each = -(-devices // nodes)
    lost, corrupt = (int(share * devices) // each for share in (privacy.dropout, privacy.corrupt))
    return (
        f"{devices:,} devices behind {nodes} nodes; its `dropout` tolerates the loss of {lost} nodes, its "
        f"`corrupt` {corrupt} corrupt ones"
    )

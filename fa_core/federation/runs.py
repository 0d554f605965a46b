"""Runs on a federation: launching one, following it, and finding out how it ended.

A launched run is recorded in `runs/RELEASE/`: the plan, its signature, and Flower's number of the run, so one
may detach from a run and attach again. How it ended is read from the store alone; what the ServerApp reports
is shown, and trusted only for a run that never got as far as the ledger.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from fa_core.database.connection import Unavailable
from fa_core.errors import BadInput, RoundFailed
from fa_core.federation import bundle
from fa_core.federation.directory import Federation
from fa_core.federation.lab import find_lab
from fa_core.flower.superlink import SuperLink, Unanswered
from fa_core.plan import Plan, SignedPlan, canonical, load
from fa_core.rounds.keys import signature_beside
from fa_core.rounds.outcome import STORE_SECONDS
from fa_core.rounds.progress_events import Ended, parse
from fa_core.rounds.round import Progress
from fa_core.rounds.run import require_cohort
from fa_core.store import Store, open_store
from fa_core.trust.enrolment import read_key
from fa_core.values import Estimates, Release

RETRY_SECONDS = 300.0
"""Seconds for which a SuperLink that does not answer is retried: it may be restarting."""

LOOK_EVERY = 1.0
LEAST_PREFIX = 4


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was launched: id of the coming release, Flower's number, whose budget, and when."""

    release: str
    number: int
    plan: str
    population: str
    at: str


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


def launch(federation: Federation, file: Path) -> Run:
    """Start a run of the plan in `file` on a federation that is up.

    Raises BadInput, Refused or Unanswered; then nothing was started, unless Unanswered says otherwise.
    """
    plan = load(file)
    config = _config(federation)
    require_cohort(plan, int(config["devices"]))
    signed = _signed(federation, file, plan)
    with connect(federation) as link:
        try:
            settle(federation, link)
        except Unanswered as error:
            raise Unanswered(f"{error}; `fa federation up {federation.folder}` starts a lab of it") from None
        release = secrets.token_hex(16)
        folder = federation.folder / "runs" / release
        folder.mkdir(mode=0o700, parents=True)
        kept = folder / "plan.yaml"
        kept.write_bytes(file.read_bytes())
        kept.with_name("plan.json").write_bytes(canonical(plan))
        kept.with_name("plan.yaml.sig").write_text(signed.text(), encoding="utf-8")
        try:
            number = link.start(bundle.files(), {**config, "plan": str(kept), "release": release})
        except Unanswered as error:
            raise Unanswered(
                f"{error}; whether the run was started is not known: if it was, `fa results show {release}` "
                "will have it"
            ) from None
    at = datetime.now(UTC).isoformat(timespec="seconds")
    run = Run(release, number, plan.name, str(config["population"]), at)
    (folder / "run.json").write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
    return run


def launched(federation: Federation) -> list[Run]:
    """Return the runs that were launched, oldest first."""
    found = []
    for file in (federation.folder / "runs").glob("*/run.json"):
        try:
            found.append(Run(**json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            raise BadInput(f"{file} is damaged; remove its folder to forget the run") from None
    return sorted(found, key=lambda run: run.at)


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


def follow(federation: Federation, run: Run, report: Callable[[Progress], None]) -> Ended | None:
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
                        if isinstance(event, Progress):
                            report(event)
                        ended = event if isinstance(event, Ended) else ended
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


def outcome(federation: Federation, run: Run, ended: Ended | None) -> Outcome:
    """Return what a run released, once it is over. Raises the error that it ended with.

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


def _outcome(federation: Federation, run: Run, ended: Ended | None) -> Outcome:
    with open_store(federation.store, create=ended is None or ended.code == 0) as store:
        entry = _entry(store, run)
        if entry is not None:
            return entry
        reason = _failure(store, run)
        if reason is None and _charged(store, run):
            reason = _write_off(federation, store, run)
    if reason is not None:
        raise RoundFailed(reason)
    error = ended.error() if ended else None
    raise error or RoundFailed(
        "the ServerApp ended without a report before anything was charged; nothing was released "
        f"({federation.folder / 'log' / 'superexec.log'} may say why)"
    )


def settle(federation: Federation, link: SuperLink) -> list[Run]:
    """Write off every run that was charged, is over, and has no end in the store; return those."""
    lost = []
    for run in launched(federation):
        if (federation.folder / "runs" / run.release / "settled").exists():
            continue
        state = link.run(run.number)
        if state is not None and state.status != "finished":
            continue
        with open_store(federation.store) as store:
            if _entry(store, run) is None and _failure(store, run) is None and _charged(store, run):
                _write_off(federation, store, run)
                lost.append(run)
        (federation.folder / "runs" / run.release / "settled").touch()
    return lost


def devices(federation: Federation) -> int:
    """Return how many devices a federation is said to have, a public number. Raises BadInput as `launch`."""
    return int(_config(federation)["devices"])


def _write_off(federation: Federation, store: Store, run: Run) -> str:
    # The bytes as launched: parsed again, the plan might have expired since.
    plan = (federation.folder / "runs" / run.release / "plan.json").read_bytes()
    reason = "the ServerApp died or was stopped during the round; nothing was released"
    store.fail(run.release, plan, run.population, "unknown", reason, datetime.now(UTC))
    return reason


def _entry(store: Store, run: Run) -> Outcome | None:
    try:
        entry = store.find(run.release)
    except BadInput:
        return None
    return Outcome(*store.read(entry), entry.synthetic)


def _failure(store: Store, run: Run) -> str | None:
    found = [each.reason for each in store.failures(limit=1000) if each.release == run.release]
    return found[0] if found else None


def _charged(store: Store, run: Run) -> bool:
    return any(charge.release == run.release for charge in store.charges(run.population))


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
    each = -(-devices // nodes)
    lost, corrupt = (int(share * devices) // each for share in (privacy.dropout, privacy.corrupt))
    return (
        f"{devices:,} devices behind {nodes} nodes; its `dropout` tolerates the loss of {lost} nodes, its "
        f"`corrupt` {corrupt} corrupt ones"
    )

"""`device.toml`: what the owner and the maker of a device decide. Unknown keys and wrong types are refused.

A device's folder holds `device.toml`, `store.db` and, unless the key is elsewhere, `store.key`.
"""

import re
import tomllib
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from clients.device.keys import KeySource
from clients.device.odometer import SKEW, Budget
from clients.device.policy import Policy, QuietHours, Requirement
from clients.device.redaction import Redactor
from clients.device.serve import Endpoint
from clients.device.store import DEFAULT_RETENTION, Rules
from clients.device.trust import PinnedKey, Pins
from fa_core.errors import BadInput, problems
from fa_core.labels import lookalikes, normal, wrong
from fa_core.tables import STORED

CONFIG, STORE, KEY, SOCKET, MODELS = "device.toml", "store.db", "store.key", "device.sock", "models"


def _exact(value: object) -> object:
    """Take numbers as they were written: TOML floats by their shortest text, fractions as "1/8"."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a number")
    try:
        if re.search(r"e[-+]?\d{4}", str(value), re.IGNORECASE):  # whose digits would fill the memory
            raise ValueError("expected a number")
        return Fraction(str(value))
    except ZeroDivisionError:
        raise ValueError("expected a number") from None


def _public_key(value: object) -> bytes:
    if isinstance(value, str) and len(value) == 64:
        return bytes.fromhex(value)
    raise ValueError("expected a raw Ed25519 public key, 64 hexadecimal digits")


def _zone(value: object) -> str:
    try:
        return ZoneInfo(str(value)).key
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, such as Europe
        raise ValueError("expected a time zone such as Europe/Berlin") from None


def _label(value: str) -> str:
    label = normal(value)
    if (what := wrong(label)) is not None:
        raise ValueError(f"a label here {what}")
    return label


def _unlike(values: list[str]) -> list[str]:
    for earlier, label in lookalikes(values):
        raise ValueError(f"{label!r} looks like {earlier!r}: only case, width or spaces differ; keep one")
    return values


Exact = Annotated[Fraction, BeforeValidator(_exact)]
Key = Annotated[bytes, BeforeValidator(_public_key)]
Labels = Annotated[list[Annotated[str, AfterValidator(_label)]], AfterValidator(_unlike)]
Days = Annotated[int, Field(ge=0, le=3660)]


class Section(BaseModel):
    """Base of every section: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


class KeySection(Section):
    """Where the store's key is kept."""

    source: KeySource = "file"


class LabelsSection(Section):
    """The labels that may be stored; anything else becomes `other`."""

    wake_word: Labels = []
    model_version: Labels = []
    intent: Labels = []


class BudgetSection(Section):
    """The device's own budgets: zCDP rho in a rolling window, for evaluation and, where the owner consents to
    personalisation, for training. `settle_days` defaults to the window."""

    rho: Exact = Field(default=Budget().rho, ge=0)
    training_rho: Exact = Field(default=Budget().training_rho, ge=0)
    window_days: Annotated[int, Field(ge=1, le=3660)] = Budget().window.days
    settle_days: Days | None = None


class QuietSection(Section):
    """Hours of local time in which nothing runs."""

    start: time
    end: time
    zone: Annotated[str, BeforeValidator(_zone)] = "UTC"


class PolicySection(Section):
    """When plans may run and how much they may ask; the fields of `policy.Policy`."""

    require: list[Requirement] = []
    quiet: QuietSection | None = None
    plans_a_day: Annotated[int, Field(ge=0)] = 4
    minutes_a_day: Annotated[int, Field(ge=0)] = 10
    max_epsilon: Exact = Policy().max_epsilon
    max_delta: Exact = Fraction(1, 10**6)
    max_cells: int = 50_000
    min_cohort: Annotated[int, Field(ge=2)] = 50
    central_noise: bool = False
    single_vectors: bool = False
    min_corrupt: Exact = Fraction(1, 20)
    max_dropout: Exact = Fraction(1, 2)
    reply_seconds: Annotated[int, Field(ge=0, le=20)] = 2
    min_kappa: Exact = Policy().min_kappa
    training_epsilon: Exact = Policy().training_epsilon
    training_rounds_a_week: Annotated[int, Field(ge=0)] = Policy().training_rounds_a_week


class PinnedKeySection(Section):
    """One plan key and the days on which it counts, first and last."""

    name: str
    key: Key
    first: date
    last: date

    @model_validator(mode="after")
    def _in_order(self) -> "PinnedKeySection":
        if self.first > self.last:
            raise ValueError("the first day must not be after the last")
        if self.last == date.max:
            raise ValueError(f"the last day must be before {date.max}, where the calendar ends")
        return self


class TrustSection(Section):
    """The public keys that came with the device. Without a helper's it takes part in no collection."""

    plan_keys: list[PinnedKeySection]
    revoked: list[Key] = []
    log: Key
    witness: Key
    authority: Key
    helper: Key | None = None
    skew_minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)] = SKEW // timedelta(minutes=1)


class ModelsSection(Section):
    """Where published models are read, a directory on this machine, and the space that kept ones may take.

    Without a directory a device that connects to a gateway reads that one's. `population` is the name of the
    device's; where it is given, the device follows that population's rollouts. `anchors` are hashes of anchor
    sets that it fetches where it may learn its owner (`clients.personal`).
    """

    published: str | None = None
    population: str | None = None
    anchors: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = []
    space_mb: Annotated[int, Field(ge=1, le=4096)] = 32


class ServeSection(Section):
    """The socket (a path; beside this file by default) and the users, by number, that may connect."""

    socket: str = SOCKET
    relays: list[Annotated[int, Field(ge=0)]] = []


class DeviceConfig(Section):
    """The whole of `device.toml`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    conditions: str | None = None
    contacts: str | None = None
    key: KeySection = KeySection()
    retention_days: dict[Literal[tuple(STORED)], Annotated[int, Field(ge=1, le=3660)]] = {}  # type: ignore[valid-type]
    labels: LabelsSection = LabelsSection()
    budget: BudgetSection = BudgetSection()
    policy: PolicySection = PolicySection()
    trust: TrustSection
    serve: ServeSection = ServeSection()
    models: ModelsSection = ModelsSection()

    def rules(self, folder: Path) -> Rules:
        """Return the store's rules. Raises BadInput where the contact list that is named cannot be read."""
        kept = {name: timedelta(days=days) for name, days in self.retention_days.items()}
        intents = frozenset(self.labels.intent)
        return Rules(
            {name: kept.get(name, DEFAULT_RETENTION) for name in STORED},
            {
                "wake_word": frozenset(self.labels.wake_word),
                "model_version": frozenset(self.labels.model_version),
                "intent_predicted": intents,
                "intent_actual": intents,
            },
            Redactor(_names(folder / self.contacts) if self.contacts else frozenset()),
        )

    def device_budget(self) -> Budget:
        """Return the odometer's limits."""
        window = timedelta(days=self.budget.window_days)
        settle = self.budget.settle_days
        settles = window if settle is None else timedelta(days=settle)
        return Budget(self.budget.rho, window, settles, self.budget.training_rho)

    def device_policy(self) -> Policy:
        """Return the policy."""
        said = self.policy
        quiet = QuietHours(said.quiet.start, said.quiet.end, said.quiet.zone) if said.quiet else None
        return Policy(
            frozenset(said.require),
            quiet or Policy().quiet,
            said.plans_a_day,
            timedelta(minutes=said.minutes_a_day),
            said.max_epsilon,
            said.max_delta,
            said.max_cells,
            said.min_cohort,
            said.central_noise,
            said.single_vectors,
            said.min_corrupt,
            said.max_dropout,
            said.min_kappa,
            timedelta(seconds=said.reply_seconds),
            said.training_epsilon,
            said.training_rounds_a_week,
        )

    def pins(self) -> Pins:
        """Return the trusted keys. A key counts through the whole of its last day, UTC."""
        keys = tuple(
            PinnedKey(each.name, each.key, _midnight(each.first), _midnight(each.last + timedelta(days=1)))
            for each in self.trust.plan_keys
        )
        said = self.trust
        skew = timedelta(minutes=said.skew_minutes)
        return Pins(keys, frozenset(said.revoked), said.log, said.witness, said.authority, skew, said.helper)

    def endpoint(self, folder: Path) -> Endpoint:
        """Return where to serve."""
        return Endpoint(folder / self.serve.socket, frozenset(self.serve.relays))


def read_config(path: Path) -> DeviceConfig:
    """Read `device.toml`. Raises BadInput with every problem, by key."""
    try:
        return DeviceConfig.model_validate(tomllib.loads(path.read_text("utf-8-sig")))
    except OSError as error:
        text = f"{path} cannot be read: {error.strerror}; docs/device.md has one to start from"
        raise BadInput(text) from None
    except ValidationError as error:
        raise BadInput("\n".join(f"{path}: {each}" for each in problems(error))) from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError
        raise BadInput(f"{path} is not TOML: {error}") from None


def _names(path: Path) -> frozenset[str]:
    """Return the names in a contact list, one a line."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise BadInput(f"the contact list {path} cannot be read: one name a line is expected") from None
    return frozenset(name for line in lines if (name := line.strip()))


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(0), UTC)

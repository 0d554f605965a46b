"""What hears a wake word on a device, and the session of each stream that it hears."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from clients.device.owner import DeviceHome
from clients.device.records import Records
from clients.models import policy as policies
from clients.models.believe import RefusedModel
from clients.models.kept import Models
from clients.runtime.detectors import WAKE_WORDS, Detector, open_detector
from clients.runtime.events import Listener, Minutes
from clients.runtime.following import Chooser, opened
from clients.runtime.policy import FollowedPolicy
from clients.runtime.published import open_policy, open_published
from clients.runtime.session import Observer, Recorder, Session
from clients.runtime.switching import CHOOSE, Choose, Opened, SwitchingSession
from fa_core.errors import BadInput, Refused
from fa_core.publication.artefact import is_hash

OWN = "micro-1"
"""The model that a device came with: it acts where no rollout and nobody else names another."""


@dataclass(frozen=True, slots=True)
class Listens:
    """What hears one wake word.

    Attributes:
        own: returns a fresh detector of the model that acts where the choice names none.
        choose, opened: see `SwitchingSession`; `choose` is None where only `own` may act.
        policy: what every session follows, if anything.
        every: how often a session asks `choose`.
    """

    own: Callable[[], Detector]
    choose: Choose | None
    opened: Opened
    policy: policies.Policy | None
    every: timedelta = CHOOSE

    def session(
        self,
        recorder: Recorder,
        start: datetime,
        now: datetime,
        minutes: Minutes | None = None,
        observer: Observer | None = None,
    ) -> Session | SwitchingSession:
        """Return the session of a stream that starts at `start`; `now` is the device's clock."""
        own, followed = self.own(), None if self.policy is None else FollowedPolicy(self.policy)
        if self.choose is not None:
            return SwitchingSession(
                self.choose,
                self.opened,
                own,
                recorder,
                "quality_metrics",
                start,
                now,
                followed,
                minutes,
                observer,
                every=self.every,
            )
        if followed is not None:
            followed.follow(own)
        return Session(Listener(own, start), recorder, "quality_metrics", followed, minutes, observer)


def listens(
    home: DeviceHome, models: Models, wake_word: str, model: str | None = None, policy: str | None = None
) -> Listens:
    """Return what hears a wake word: the detector that is named, else the one that acts in a rollout.

    Args:
        model: a version, or the hex SHA-256 of a published model that is here.
        policy: followed by it; the hex SHA-256 of a kept one, or a file.
    Raises:
        BadInput: there is no such detector, or the file holds no policy.
        Refused: what is published does not load.
    """
    rules = None if policy is None else _policy(models, policy)
    own = partial(_open, models, wake_word, model)
    own()
    follows = model is None and Records(home.store).enrolled()
    choose = Chooser(home, models, wake_word) if follows else None
    return Listens(own, choose, partial(opened, models), rules)


def words_of(models: Models, labels: Sequence[str], model: str | None = None) -> tuple[str, ...]:
    """Return the wake words among a device's labels that the model which is named has, or else its own.

    Raises BadInput where there is no such model or none of the labels is a word of its, Refused where it
    does not load.
    """
    version = model or OWN
    if is_hash(version.lower()):
        known: tuple[str, ...] = (_open(models, "", version).wake_word,)
    elif version in WAKE_WORDS:
        known = WAKE_WORDS[version]
    else:
        raise BadInput(f"no detector {version!r}; there are: {', '.join(WAKE_WORDS)}")
    if not (words := tuple(word for word in labels if word in known)):
        raise BadInput(
            "labels.wake_word in device.toml names no wake word with a detector; "
            f"{version} has: {', '.join(known)}"
        )
    return words


def _open(models: Models, wake_word: str, model: str | None) -> Detector:
    if model is None or not is_hash(model.lower()):
        return open_detector(model or OWN, wake_word)
    try:
        return open_published(models, model.lower())
    except RefusedModel as refused:
        raise Refused(f"{model} is not loaded: {refused}") from None


def _policy(models: Models, text: str) -> policies.Policy:
    """Return the policy in a file, or a kept one by its SHA-256."""
    if is_hash(text.lower()):
        try:
            return open_policy(models, text.lower())
        except RefusedModel as refused:
            raise Refused(f"{text} is not loaded: {refused}") from None
    try:
        return policies.parse(Path(text).read_bytes())
    except OSError as error:
        raise BadInput(f"{text} cannot be read: {error.strerror}") from None
    except BadInput as error:
        raise BadInput("\n".join(f"{text}: {line}" for line in str(error).splitlines())) from None

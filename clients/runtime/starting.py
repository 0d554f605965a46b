"""What hears a wake word on a device, and the session of each stream that it hears."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from clients.device.owner import DeviceHome
from clients.device.records import Records
from clients.models.believe import RefusedModel
from clients.models.kept import Models
from clients.runtime.detectors import Detector, open_detector
from clients.runtime.events import Listener, Minutes
from clients.runtime.following import choice, opened
from clients.runtime.published import open_published
from clients.runtime.session import Recorder, Session
from clients.runtime.switching import Choose, Opened, SwitchingSession
from fa_core.errors import Refused
from fa_core.publication.artefact import is_hash

OWN = "micro-1"
"""The model that a device came with: it acts where no rollout and nobody else names another."""


@dataclass(frozen=True, slots=True)
class Listens:
    """What hears one wake word.

    Attributes:
        own: returns a fresh detector of the model that acts where the choice names none.
        choose, opened: see `SwitchingSession`; `choose` is None where only `own` may act.
    """

    own: Callable[[], Detector]
    choose: Choose | None
    opened: Opened

    def session(
        self, recorder: Recorder, start: datetime, now: datetime, minutes: Minutes | None = None
    ) -> Session | SwitchingSession:
        """Return the session of a stream that starts at `start`; `now` is the device's clock."""
        if self.choose is None:
            return Session(Listener(self.own(), start), recorder, "quality_metrics", minutes=minutes)
        return SwitchingSession(
            self.choose, self.opened, self.own(), recorder, "quality_metrics", start, now, minutes=minutes
        )


def listens(home: DeviceHome, models: Models, wake_word: str, model: str | None = None) -> Listens:
    """Return what hears a wake word: the detector that is named, else the one that acts in a rollout.

    Args:
        model: a version, or the hex SHA-256 of a published model that is here.
    Raises:
        BadInput: there is no such detector. Refused: the published model does not load.
    """
    own = partial(_open, models, wake_word, model)
    own()
    follows = model is None and Records(home.store).enrolled()
    choose = partial(choice, home, models, wake_word) if follows else None
    return Listens(own, choose, partial(opened, models))


def _open(models: Models, wake_word: str, model: str | None) -> Detector:
    if model is None or not is_hash(model.lower()):
        return open_detector(model or OWN, wake_word)
    try:
        return open_published(models, model.lower())
    except RefusedModel as refused:
        raise Refused(f"{model} is not loaded: {refused}") from None

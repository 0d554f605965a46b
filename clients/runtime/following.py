"""A device follows its rollouts: it asks for the newest manifests, fetches their models, and opens what acts.

Every device of a rollout fetches both models and keeps the baseline, so that its downloads do not say whether
the candidate acts on it. Detectors are imported where one is opened: a hub that follows nothing needs none.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from secrets import SystemRandom
from typing import TYPE_CHECKING

from sqlcipher3 import dbapi2 as sqlcipher

from clients.device.contribution import StoredDevice
from clients.device.owner import DeviceHome
from clients.device.policy import utc_now
from clients.device.process import Beside, Work
from clients.device.records import Records
from clients.device.remote import Unreachable, line
from clients.models.believe import RefusedModel
from clients.models.kept import Models
from clients.models.sources import Folder, Gateway, Source
from clients.rollout.acting import Choice
from clients.rollout.state import Rollouts
from fa_core.errors import BadInput
from fa_core.publication import directory
from fa_core.publication.rollout import ENDED, RolloutManifest, rollout_name
from fa_core.secagg.identity import population_id

if TYPE_CHECKING:
    from clients.runtime.detectors import Detector
    from clients.runtime.published import Loads

ASK_SECONDS = 240.0
"""How often a connected device asks for the newest manifests: a rollback reaches it within five minutes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Follower:
    """What follows the rollouts of one device.

    Attributes:
        alone: held while the store is used, so that nobody else uses its connection meanwhile.
        source: where rollouts and models are published. population: its name.
    """

    home: DeviceHome
    source: Source
    population: str
    alone: AbstractContextManager[object]

    def ask(self, now: datetime) -> None:
        """Fetch the newest manifests and the models that they need; what is refused changes nothing.

        Raises Unreachable where the source does not answer.
        """
        from clients.runtime.published import models_of

        rollouts = rollouts_of(self.home)
        for wake_word in self.home.config.labels.wake_word:
            name = rollout_name(self.population, wake_word)
            data = self.source.read(name, directory.most_bytes(name))
            with self.alone:
                if data is not None:
                    rollouts.take(data, wake_word, now)
                held = rollouts.held(wake_word)
                needed = [each.hex() for each in needs(held.manifest)] if held else []
                models = models_of(self.home, self.source)
                for digest in needed:
                    try:
                        models.obtain(digest, now, keep=needed)
                    except RefusedModel:
                        logger.warning("a model of a rollout was refused; the journal says why")


def beside_hub(devices: Sequence[tuple[DeviceHome, StoredDevice]]) -> Work | None:
    """Return what follows the rollouts of a hub's devices that read a directory. Raises BadInput as below."""
    found = [
        Follower(home, Folder(home.folder / home.config.models.published), population, device.alone)
        for home, device in devices
        if (population := _population(home)) and home.config.models.published
    ]
    return partial(follow, found) if found else None


def beside_gateway(url: str, authority: Path | None) -> Beside:
    """Return what follows a device's rollouts through its gateway, or in the directory of device.toml.

    Its store is opened a second time: a download may take as long as a round.

    Raises:
        BadInput: when it starts, where device.toml names another population than the certificate.
    """

    def start(devices: Sequence[tuple[DeviceHome, StoredDevice]]) -> Work | None:
        ((home, _),) = devices
        population, published = _population(home), home.config.models.published
        if population is None:
            return None
        own = DeviceHome.open(home.folder, utc_now())
        through = Gateway(line(url, Records(home.store).identity(), authority))
        source: Source = Folder(home.folder / published) if published else through
        return partial(follow, [Follower(own, source, population, nullcontext())])

    return start


def _population(home: DeviceHome) -> str | None:
    population = home.config.models.population
    if population and population_id(population) != Records(home.store).identity().population:
        raise BadInput(f"models.population: this device's certificate is not of the population {population}")
    return population


def follow(followers: Sequence[Follower], stopped: threading.Event) -> None:
    """Ask for every device's rollouts until stopped, each time after at most `ASK_SECONDS`."""
    chance = SystemRandom()
    while not stopped.is_set():
        for each in followers:
            try:
                each.ask(utc_now())
            except (Unreachable, sqlcipher.Error):
                logger.info("what is published cannot be reached, or a store is busy; it will be tried again")
        stopped.wait(ASK_SECONDS * (1 - 0.25 * chance.random()))


def needs(manifest: RolloutManifest) -> tuple[bytes, ...]:
    """Return the models (SHA-256) that a device holds under a manifest, the baseline first."""
    if manifest.state in ENDED:
        return (manifest.baseline,)
    return manifest.baseline, manifest.candidate


def rollouts_of(home: DeviceHome) -> Rollouts:
    """Return a device's rollouts. Raises BadInput where it was never enrolled."""
    from clients.runtime.published import shipped

    versions = {
        wake_word: frozenset(each.version for each in shipped().values() if each.wake_word == wake_word)
        for wake_word in home.config.labels.wake_word
    }
    return Rollouts(home.store, home.config.pins(), Records(home.store).identity().population, versions)


class Chooser:
    """Chooses which model acts on a device for a wake word, of those that are here and verify.

    A detector is opened once, to see that it can be; from then on its model is verified alone.
    """

    def __init__(self, home: DeviceHome, models: Models, wake_word: str) -> None:
        self._home = home
        self._models = models
        self._wake_word = wake_word
        self._opened: set[bytes] = set()

    def __call__(self, now: datetime) -> Choice:
        """Return the choice at a time, by the device's clock."""
        rollouts = rollouts_of(self._home)
        held = rollouts.held(self._wake_word)
        needed = needs(held.manifest) if held else ()
        here = frozenset(each for each in needed if self._is_here(each))
        return rollouts.choice(self._wake_word, here, self._home.conditions()(now).charging, now)

    def _is_here(self, digest: bytes) -> bool:
        from clients.runtime.published import open_published

        try:
            if digest in self._opened:
                self._models.load(digest.hex())
            else:
                open_published(self._models, digest.hex())
        except (RefusedModel, BadInput):
            return False
        self._opened.add(digest)
        return True


def opened(models: "Loads", chosen: Choice) -> "tuple[Detector | None, Detector | None]":
    """Return the detectors of a choice: of the model that acts, None for the one that the device came with,
    and of the one in shadow."""
    from clients.runtime.published import open_published

    acting = open_published(models, chosen.acting.hex()) if chosen.acting else None
    return acting, open_published(models, chosen.shadow.hex()) if chosen.shadow else None

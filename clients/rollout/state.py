"""What a device remembers of rollouts, in its encrypted store, and the one way in which that changes."""

import logging
import secrets
from collections.abc import Collection, Mapping
from datetime import datetime
from types import MappingProxyType

from clients.device.journal import Json
from clients.device.records import Records
from clients.device.rows import micros, moment
from clients.device.store import Store
from clients.device.trust import Pins
from clients.rollout.acting import Choice, Here, choose
from clients.rollout.belief import Held, Known, believe
from clients.rollout.terms import Terms
from fa_core.errors import BadInput, Refused
from fa_core.publication.proofs import Publication, Seen
from fa_core.publication.rollout import RolloutManifest, State
from fa_core.publication.signed import SignedDocument

SECRET_BYTES = 32

_MEANING: dict[State, str] = {
    "shadow": "{baseline} acts, and {candidate} scores too",
    "live": "{candidate} acts on {share:.6g} of the devices",
    "complete": "{candidate} acts on every device",
    "rolled_back": "{baseline} acts",
    "killed": "{baseline} acts",
}

logger = logging.getLogger(__name__)


class Rollouts:
    """The rollouts of one device, by wake word.

    Args:
        population: as the device's certificate names it, 32 bytes.
        shipped: versions of the models that came with the device, by wake word.
    """

    def __init__(
        self,
        store: Store,
        pins: Pins,
        population: bytes,
        shipped: Mapping[str, frozenset[str]] = MappingProxyType({}),
    ) -> None:
        self._store = store
        self._connection = store.connection
        self._pins = pins
        self._population = population
        self._shipped = shipped

    def take(self, data: bytes, wake_word: str, now: datetime) -> None:
        """Do as `receive`, and leave a refusal to the journal."""
        try:
            self.receive(data, wake_word, now)
        except Refused:
            logger.warning("a rollout was refused; the journal says why")

    def receive(self, data: bytes, wake_word: str, now: datetime) -> Held:
        """Read a published file, and keep the manifest in it. Raises Refused where it is not believed.

        What was held before then stays. The owner's journal gets an entry for a new rollout or stage, and one
        for a new reason to refuse.
        """
        known = self.known(wake_word)
        try:
            held = believe(_decoded(data), self._pins, self._population, wake_word, known, now)
        except Refused as refused:
            self._refuse(wake_word, str(refused), now)
            raise
        self._keep(wake_word, known, held, now)
        return held

    def known(self, wake_word: str) -> Known:
        """Return what was seen of the rollouts for a wake word."""
        read, word = self._connection.execute, (wake_word,)
        over = read("SELECT rollout FROM rollout_over WHERE wake_word = ?", word).fetchall()
        floors = read("SELECT version FROM rollout_floor WHERE wake_word = ?", word).fetchall()
        log = Records(self._store).seen()
        return Known(
            self.held(wake_word),
            frozenset(bytes(each) for (each,) in over),
            frozenset(str(each) for (each,) in floors),
            Seen(log.size, log.root),
            self._shipped.get(wake_word, frozenset()),
        )

    def held(self, wake_word: str) -> Held | None:
        """Return the manifest that is held for a wake word."""
        select = "SELECT manifest, signed, witnessed, size, root FROM rollout WHERE wake_word = ?"
        row = self._connection.execute(select, (wake_word,)).fetchone()
        if row is None:
            return None
        manifest, entry, witnessed, size, root = row
        signed = SignedDocument.from_entry("rollout", bytes(entry))
        select = "SELECT manifest FROM rollout_ended WHERE wake_word = ?"
        (ended,) = self._connection.execute(select, (wake_word,)).fetchone() or (manifest,)
        return Held(
            RolloutManifest.from_entry(bytes(ended)),
            RolloutManifest.from_entry(bytes(manifest)),
            signed,
            Terms.from_document(signed.document),
            moment(witnessed),
            Seen(size, bytes(root)),
        )

    def choice(
        self, wake_word: str, models: Collection[bytes], charging: bool | None, now: datetime
    ) -> Choice:
        """Return which model acts now for a wake word; `models` and `charging` as in `acting.Here`."""
        latest = Records(self._store).seen().latest
        here = Here(self._secret(now), models, charging, now, latest)
        return choose(self.held(wake_word), here, self._pins)

    def _secret(self, now: datetime) -> bytes:
        """Return the secret of this device's buckets, made when it is first asked for."""
        read = "SELECT value FROM state WHERE name = 'bucket'"
        row = self._connection.execute(read).fetchone()
        if row is None:
            made = secrets.token_bytes(SECRET_BYTES)
            with self._store.transaction(now):
                self._connection.execute("INSERT OR IGNORE INTO state VALUES ('bucket', ?)", (made,))
            row = self._connection.execute(read).fetchone()
        return bytes(row[0])

    def _keep(self, wake_word: str, known: Known, held: Held, now: datetime) -> None:
        after, write = known.after(held), self._connection.execute
        entries = (held.cosigned.entry(), held.signed.entry())
        row = (wake_word, *entries, micros(held.witnessed), held.seen.size, held.seen.root)
        with self._store.transaction(now):
            write("INSERT OR REPLACE INTO rollout VALUES (?, ?, ?, ?, ?, ?)", row)
            write("DELETE FROM rollout_ended WHERE wake_word = ?", (wake_word,))
            if held.manifest != held.cosigned:
                write("INSERT INTO rollout_ended VALUES (?, ?)", (wake_word, held.manifest.entry()))
            for rollout in after.over - known.over:
                write("INSERT OR IGNORE INTO rollout_over VALUES (?, ?)", (wake_word, rollout))
            write("DELETE FROM rollout_floor WHERE wake_word = ?", (wake_word,))
            for version in sorted(after.floors):
                write("INSERT INTO rollout_floor VALUES (?, ?)", (wake_word, version))
            write("DELETE FROM rollout_refused WHERE wake_word = ?", (wake_word,))
            if known.held is None or _stage(known.held) != _stage(held):
                self._store.append(now, "rollout", _entry(held))

    def _refuse(self, wake_word: str, why: str, now: datetime) -> None:
        """Write into the journal why a file was refused, unless the last one was refused for the same."""
        read = "SELECT 1 FROM rollout_refused WHERE wake_word = ? AND why = ?"
        if self._connection.execute(read, (wake_word, why)).fetchone():
            return
        with self._store.transaction(now):
            write = "INSERT OR REPLACE INTO rollout_refused VALUES (?, ?)"
            self._connection.execute(write, (wake_word, why))
            self._store.append(now, "declined", {"wake_word": wake_word, "why": why})


def wake_words(store: Store) -> list[str]:
    """Return the wake words that a manifest is held for."""
    rows = store.connection.execute("SELECT wake_word FROM rollout ORDER BY wake_word").fetchall()
    return [str(word) for (word,) in rows]


def _decoded(data: bytes) -> Publication:
    try:
        return Publication.decode(data)
    except BadInput as error:
        raise Refused(str(error)) from None


def _stage(held: Held) -> tuple[object, ...]:
    manifest = held.manifest
    return manifest.rollout, manifest.state, manifest.stage, manifest.share


def _entry(held: Held) -> dict[str, Json]:
    """Return what the journal says of a manifest: public facts of the rollout, none of this device."""
    manifest, terms = held.manifest, held.terms
    meaning = _MEANING[manifest.state].format(
        baseline=terms.models.baseline.version,
        candidate=terms.models.candidate.version,
        share=float(manifest.share),
    )
    return {
        "rollout": terms.name,
        "hash": manifest.rollout.hex(),
        "wake_word": manifest.wake_word,
        "sequence": manifest.sequence,
        "state": manifest.state,
        "stage": manifest.stage,
        "share": str(manifest.share),
        "meaning": meaning,
    }

"""What a signed rollout binds a device to. The rest of the document is for those who decide about it."""

import json
import re
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from fa_core.errors import BadInput
from fa_core.plan.schema import Day, Window
from fa_core.publication.artefact import MAX_TEXT

Text = Annotated[str, Field(max_length=MAX_TEXT)]

_SHARE = re.compile(r"[0-9]{1,40}([./][0-9]{1,40})?")


def _share(value: object) -> Fraction:
    text = str(value) if type(value) in (str, int, float) else ""
    if not _SHARE.fullmatch(text):
        raise ValueError("expected a share such as 0.1")
    return Fraction(text)


Share = Annotated[Fraction, BeforeValidator(_share), Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Model(_Part):
    """A model's version, and the SHA-256 of its bytes as 64 hex digits."""

    version: Text
    sha256: Text


class Models(_Part):
    """The model in the field, the one that may replace it, and the oldest version that may be loaded."""

    baseline: Model
    candidate: Model
    floor: Text


class Stage(_Part):
    """`shadow`, or `live` with a share of the devices."""

    shadow: Share | None = None
    live: Share | None = None


class _Metadata(_Part):
    name: Text
    revision: int
    expires: Day


class Terms(_Part):
    """The parts of a rollout's document (`fa_core.rollout`) that a device holds its manifests to."""

    metadata: _Metadata
    population: Text
    wake_word: Text
    models: Models
    stages: tuple[Stage, ...]
    lease: Window

    @classmethod
    def from_document(cls, document: bytes) -> "Terms":
        """Return the terms in a document's canonical JSON. Raises BadInput where it has none."""
        try:
            found = cls.model_validate(json.loads(document))
            if found.metadata.expires < date.max:
                return found
        except (ValidationError, ValueError, ZeroDivisionError, OverflowError, RecursionError):
            pass
        raise BadInput("the document is no rollout that this device understands")

    @property
    def name(self) -> str:
        """Name and revision, as a person cites the rollout: `embed-2@1`."""
        return f"{self.metadata.name}@{self.metadata.revision}"

    @property
    def end(self) -> datetime:
        """When the rollout's last day is over, UTC."""
        return datetime.combine(self.metadata.expires, time(0), UTC) + timedelta(days=1)

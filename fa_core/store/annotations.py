"""Annotations of trends: on a day something happened that explains a change, such as a model release.

They are remarks of the store's owner, no part of a release, and not in the transparency log: they may be
removed.
"""

import secrets
from dataclasses import asdict, dataclass
from datetime import date
from typing import Final

from sqlalchemy import Connection, delete, insert, or_, select

from fa_core import labels
from fa_core.errors import BadInput
from fa_core.store.schema import annotations

LONGEST: Final = 120
"""Characters of the longest text."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """A day (UTC) with a text, of one plan by its name, or of every plan where `plan` is None.

    `id` has 8 hex digits.
    """

    id: str
    day: date
    plan: str | None
    text: str


def add(connection: Connection, day: date, text: str, plan: str | None) -> Annotation:
    """Write an annotation. Raises BadInput for a text that is empty, longer than a line, or not visible."""
    text = labels.normal(text)
    if (problem := labels.wrong(text, LONGEST)) is not None:
        raise BadInput(f"the text of the annotation {problem}")
    made = Annotation(secrets.token_hex(4), day, plan, text)
    connection.execute(insert(annotations).values(**asdict(made) | {"day": day.isoformat()}))
    return made


def remove(connection: Connection, identifier: str) -> None:
    """Remove an annotation. Raises BadInput where there is none of this id."""
    if not connection.execute(delete(annotations).where(annotations.c.id == identifier)).rowcount:
        raise BadInput(f"there is no annotation {identifier[:32]!r}; `fa results annotations` lists them")


def listed(connection: Connection, plan: str | None) -> tuple[Annotation, ...]:
    """Return the annotations of a plan and those of every plan, by day; all where `plan` is None."""
    query = select(annotations).order_by(annotations.c.day, annotations.c.id)
    if plan is not None:
        query = query.where(or_(annotations.c.plan == plan, annotations.c.plan.is_(None)))
    return tuple(
        Annotation(row.id, date.fromisoformat(row.day), row.plan, row.text)
        for row in connection.execute(query)
    )

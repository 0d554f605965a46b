"""The JSON Schema of a rollout's file, for hints while it is written: docs/rollout.schema.json."""

import json
from typing import Any

from pydantic.json_schema import models_json_schema

from fa_core.plan.editor import plain
from fa_core.rollout.document import Rollout


def schema_text() -> str:
    """Return the text of docs/rollout.schema.json."""
    return json.dumps(editor_schema(), indent=2, ensure_ascii=False) + "\n"


def editor_schema() -> dict[str, Any]:
    """Return the JSON Schema of a rollout's file."""
    refs, generated = models_json_schema([(Rollout, "validation")], by_alias=True)
    defs: dict[str, Any] = {name: plain(body) for name, body in generated["$defs"].items()}
    whole = defs.pop(refs[Rollout, "validation"]["$ref"].rpartition("/")[2])
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Unheard rollout",
        **whole,
        "$defs": dict(sorted(defs.items())),
    }

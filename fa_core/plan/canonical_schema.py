"""The JSON Schema of a plan's canonical form: what is hashed and signed, and what a device reads.

It is generated from the models, as that of the file is (`editor.py`); `docs/plan.canonical.schema.json` is
its text. In the canonical form nothing is left out and nothing is short: exact numbers are text, every key of
a section stands there, conditions are written out, and each metric says its table and its groupings.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from fa_core.metrics import KINDS, Condition, MetricSpec
from fa_core.metrics.features import NormHistogram, OneShotMeans
from fa_core.plan.schema import (
    NAME_PATTERN,
    DeviceSegment,
    Eligibility,
    EventSegment,
    Guardrail,
    Metadata,
    OperatingPoint,
    Plan,
    Privacy,
    Share,
)
from fa_core.plan.training import Base, Gates, TrainPlan

Schema = dict[str, Any]

EXACT: Final = r"^-?(0|[1-9][0-9]*)(\.[0-9]*[1-9]|/[1-9][0-9]*)?$"
"""A plain decimal without trailing zeros, or a fraction that no decimal is equal to, in lowest terms."""

_OF_BEFORE: Final = frozenset({"counters", "shares", "max_excess", "sum", "kappa"})
"""Keys of `privacy` that only some plans have: new ones, those of before, those for two aggregators."""

_TRAINED: Final = (OneShotMeans, NormHistogram)


def canonical_schema_text() -> str:
    """Return the text of docs/plan.canonical.schema.json."""
    return json.dumps(canonical_schema(), indent=2, ensure_ascii=False) + "\n"


def canonical_schema() -> Schema:
    """Return the JSON Schema (draft 07) of the canonical form of evaluation plans and training plans."""
    models: list[type[BaseModel]] = [
        Plan, TrainPlan, *(kind for _, kind in sorted(KINDS.items())), *_TRAINED, Condition, Metadata,
        Eligibility, Privacy, Share, Guardrail, OperatingPoint, DeviceSegment, EventSegment, Base, Gates,
    ]  # fmt: skip
    refs, generated = models_json_schema([(model, "validation") for model in models], by_alias=True)
    names = {model: refs[model, "validation"]["$ref"].rpartition("/")[2] for model in models}
    defs: Schema = {name: _plain(body) for name, body in generated["$defs"].items()}
    for model, name in names.items():
        _complete(defs[name], model)
    for name in ("Bins", "Clip", "Comparison"):
        defs[name]["required"] = sorted(defs[name]["properties"])
    del defs["MetricSpec"]
    evaluated, trained = (sorted(names[kind] for kind in kinds) for kinds in (KINDS.values(), _TRAINED))
    for name, kinds in ((names[Plan], evaluated), (names[TrainPlan], trained)):
        properties = defs[name]["properties"]
        properties["metrics"] = _metrics(kinds)
        properties["segments"] |= {"propertyNames": {"pattern": NAME_PATTERN}}
    defs["Exact"] = {
        "type": "string",
        "pattern": EXACT,
        "description": "An exact number: the shortest plain decimal, or else a/b in lowest terms.",
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Unheard plan, canonical form",
        "description": "docs/device-protocol.md says how it is written, and what else a device checks.",
        "oneOf": [{"$ref": f"#/$defs/{names[plan]}"} for plan in (Plan, TrainPlan)],
        "$defs": dict(sorted(defs.items())),
    }


def _metrics(kinds: list[str]) -> Schema:
    return {
        "type": "object",
        "propertyNames": {"pattern": NAME_PATTERN},
        "minProperties": 1,
        "additionalProperties": {"oneOf": [{"$ref": f"#/$defs/{kind}"} for kind in kinds]},
    }


def _plain(schema: Any) -> Any:
    """Return pydantic's schema without titles and defaults, and with exact numbers as text."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    if schema.get("type") == "number":
        return {"$ref": "#/$defs/Exact"}
    return {
        key: {name: _plain(body) for name, body in value.items()} if key == "properties" else _plain(value)
        for key, value in schema.items()
        if key not in ("title", "default", "examples", "description")
    }


def _complete(schema: Schema, model: type[BaseModel]) -> None:
    """Have every key of a model stand there, but those that are left out where there is nothing to say."""
    optional = set(_OF_BEFORE) if model is Privacy else set()
    for name, info in model.model_fields.items():
        key = info.alias or name
        if info.exclude:
            del schema["properties"][key]
        elif info.exclude_if is not None:
            optional.add(key)
            schema["properties"][key] = _present(schema["properties"][key])
    if issubclass(model, MetricSpec):
        schema["properties"]["kind"] = {"const": model.model_fields["kind"].default}
        schema["properties"]["source"] = {"enum": list(model.sources)}
        schema["properties"]["group_by"] = _present(schema["properties"]["group_by"])
    schema["additionalProperties"] = False
    schema["required"] = sorted(set(schema["properties"]) - optional)


def _present(schema: Schema) -> Schema:
    """Return the schema of a key that is never null: it is left out instead."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    return choices[0] if len(choices) == 1 else schema

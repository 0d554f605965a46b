"""The JSON Schema of a plan file, for completion and hints while it is written.

It is generated from the models, so it cannot say anything else than they do; `docs/eval-plan.schema.json`
is its text. It describes the file as a person writes it (presets by name, conditions in their short
form), where the models hold what that comes to. Draft 07, which YAML editors read best.
"""

import inspect
import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic.json_schema import models_json_schema

from fa_core.metrics import KINDS, PRESETS, MetricSpec, exact_text
from fa_core.plan.columns import FACTS, columns_anywhere, sources_with
from fa_core.plan.schema import NAME_PATTERN, Eligibility, Plan, Privacy, Section
from fa_core.plan.training import DERIVED, Gates, TrainPlan
from fa_core.tables import Column

Schema = dict[str, Any]

_FILTER = {"additionalProperties": {"$ref": "#/$defs/Condition"}, "type": "object"}
_COMPARISONS = {
    "lt": "less than this",
    "le": "at most this",
    "gt": "more than this",
    "ge": "at least this",
}


def schema_text() -> str:
    """Return the text of docs/eval-plan.schema.json."""
    return json.dumps(editor_schema(), indent=2, ensure_ascii=False) + "\n"


def training_schema_text() -> str:
    """Return the text of docs/train-plan.schema.json."""
    return json.dumps(training_schema(), indent=2, ensure_ascii=False) + "\n"


def training_schema() -> Schema:
    """Return the JSON Schema of a training plan's file: without what follows from it."""
    refs, generated = models_json_schema([(TrainPlan, "validation")], by_alias=True)
    defs: Schema = {name: plain(body) for name, body in generated["$defs"].items()}
    plan: Schema = defs.pop(refs[TrainPlan, "validation"]["$ref"].rpartition("/")[2])
    plan["properties"] = {key: body for key, body in plan["properties"].items() if key not in DERIVED}
    plan["required"] = [key for key in plan["required"] if key not in DERIVED]
    plan["properties"]["segments"] |= {
        "propertyNames": {"pattern": NAME_PATTERN},
        "additionalProperties": {"$ref": "#/$defs/DeviceSegment"},
    }
    plan["description"] = "What to train on devices, for whom, and at what privacy cost."
    sections: tuple[type[Section], ...] = (Eligibility, Gates, Privacy)
    for section in sections:
        _add_limits(defs[section.__name__], section)
    for absent in ("max_excess", "shares", "counters", "sum", "kappa"):
        # They follow, or only plans of before have them, or no training plan may have another.
        del defs["Privacy"]["properties"][absent]
    used = ("Base", "DeviceSegment", "Eligibility", "Gates", "Metadata", "Privacy")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Unheard training plan",
        **plan,
        "$defs": {name: defs[name] for name in used},
    }


def editor_schema() -> Schema:
    """Return the JSON Schema of a plan file."""
    kinds = sorted(KINDS.items())
    models: list[type[Plan] | type[MetricSpec]] = [Plan, *(kind for _, kind in kinds)]
    refs, generated = models_json_schema([(model, "validation") for model in models], by_alias=True)
    names = {model: ref["$ref"].rpartition("/")[2] for (model, _), ref in refs.items()}
    defs: Schema = {name: plain(body) for name, body in generated["$defs"].items()}
    plan: Schema = defs.pop(names[Plan])
    del defs["Condition"], defs["MetricSpec"]
    for name, kind in kinds:
        _finish_kind(defs[names[kind]], name, kind)
    presets = [_from_presets(defs[names[kind]], name) for name, kind in kinds if _presets_of(name)]
    defs["Filter"] = _filter()
    defs["Metric"] = {
        "description": "A preset by name, or a kind with its keys.",
        "oneOf": [_preset_name(), *({"$ref": f"#/$defs/{names[kind]}"} for _, kind in kinds), *presets],
    }
    _finish_segment(defs["EventSegment"])
    for section in (Eligibility, Privacy):
        _add_limits(defs[section.__name__], section)
    _finish_plan(plan, defs)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Unheard evaluation plan",
        **plan,
        "$defs": dict(sorted(defs.items())),
    }


def plain(schema: Any) -> Any:
    """Return pydantic's schema as an editor wants it: no titles, no null, and draft 07's way with `$ref`."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    if {key: schema[key] for key in _FILTER if key in schema} == _FILTER:
        body: Schema = {"allOf": [{"$ref": "#/$defs/Filter"}]}
        return {**_described(schema), **body}
    out = {
        key: {name: plain(body) for name, body in value.items()} if key == "properties" else plain(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }
    choices = [choice for choice in out.get("anyOf", ()) if choice != {"type": "null"}]
    if "anyOf" in out:
        del out["anyOf"]
        out = {**out, **choices[0]} if len(choices) == 1 else {**out, "anyOf": choices}
    if "$ref" in out and len(out) > 1:
        out["allOf"] = [{"$ref": out.pop("$ref")}]
    return _with_default(out)


def _with_default(schema: Schema) -> Schema:
    """Return a schema whose default is of its own type: exact numbers come as text; null is none."""
    default = schema.get("default", 0)
    if default is None or isinstance(default, Mapping):
        return {key: value for key, value in schema.items() if key != "default"}
    if schema.get("type") == "number" and isinstance(default, str):
        return {**schema, "default": json.loads(exact_text(Fraction(default)))}
    return schema


def _described(schema: Mapping[str, Any]) -> Schema:
    return {key: schema[key] for key in ("description",) if key in schema}


def _finish_kind(schema: Schema, name: str, kind: type[MetricSpec]) -> None:
    summary = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    schema["description"] = f"{kind.question} {summary}"
    for key, info in kind.model_fields.items():
        if info.exclude:
            del schema["properties"][info.alias or key]
    schema["properties"]["kind"] = {"const": name, "description": schema["description"]}
    schema["properties"]["source"]["enum"] = list(kind.sources)
    schema["required"] = sorted({"kind", *schema.get("required", ())})


def _presets_of(kind: str) -> list[str]:
    return [name for name, body in PRESETS.items() if body["kind"] == kind]


def _from_presets(schema: Schema, kind: str) -> Schema:
    """Return the schema of `{preset: …}` for a kind: its keys, none of them needed."""
    properties = {key: body for key, body in schema["properties"].items() if key != "kind"}
    preset = {
        "enum": _presets_of(kind),
        "description": "The preset to start from; other keys replace its own.",
    }
    return {
        "type": "object",
        "description": f"A preset of kind {kind}, with some of its keys replaced.",
        "properties": {"preset": preset, **properties},
        "required": ["preset"],
        "additionalProperties": False,
    }


def _preset_name() -> Schema:
    return {"enum": list(PRESETS), "description": "A usual metric by name; `fa plan show` writes it out."}


def _filter() -> Schema:
    properties = {name: _condition(name, column) for name, column in {**columns_anywhere(), **FACTS}.items()}
    return {
        "type": "object",
        "description": "Conditions by column, AND-ed: a value, a list (any of), or {lt|le|gt|ge|not: …}.",
        "properties": properties,
        "additionalProperties": False,
    }


def _condition(name: str, column: Column) -> Schema:
    value: Schema = {"type": {"label": "string", "boolean": "boolean"}.get(column.type, "number")}
    if column.domain is not None:
        value = {"enum": list(column.domain)}
    several = {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
    compared: Schema = {"not": {"description": "none of these", "anyOf": [value, several]}}
    if column.type in {"number", "integer"}:
        compared |= {key: {"type": "number", "description": text} for key, text in _COMPARISONS.items()}
    whole = {"type": "object", "properties": compared, "minProperties": 1, "additionalProperties": False}
    unit = f", in {column.unit}" if column.unit else ""
    return {
        "description": "Fact of the device."
        if name in FACTS
        else f"Column of {', '.join(sources_with(name))}{unit}.",
        "anyOf": [value, several, whole],
    }


def _finish_segment(schema: Schema) -> None:
    schema["properties"]["event"]["enum"] = list(columns_anywhere())
    values, edges = {"required": ["values"]}, {"required": ["edges", "labels"]}
    schema["oneOf"] = [values, edges]


def _add_limits(schema: Schema, model: type[Section]) -> None:
    """Add the limits of exact numbers, which pydantic leaves out where a type has a schema of its own."""
    words = (
        (Gt, "gt", "exclusiveMinimum"),
        (Ge, "ge", "minimum"),
        (Lt, "lt", "exclusiveMaximum"),
        (Le, "le", "maximum"),
    )
    for key, info in model.model_fields.items():
        for limit, attribute, word in words:
            for found in info.metadata:
                if isinstance(found, limit):
                    number = Fraction(getattr(found, attribute))
                    schema["properties"][key][word] = json.loads(exact_text(number))


def _finish_plan(plan: Schema, defs: Schema) -> None:
    names = {"pattern": NAME_PATTERN}
    plan["description"] = "What to measure on devices, for whom, and at what privacy cost."
    plan["properties"]["segments"] |= {"propertyNames": names}
    listed = {"type": "array", "items": _preset_name(), "minItems": 1, "uniqueItems": True}
    named = {
        "type": "object",
        "propertyNames": names,
        "additionalProperties": {"$ref": "#/$defs/Metric"},
        "minProperties": 1,
    }
    plan["properties"]["metrics"] = {**_described(plan["properties"]["metrics"]), "oneOf": [listed, named]}
    for section in ("Guardrail", "Share"):
        by = defs[section]["properties"]["by"]
        one, several = {"type": "string", **names}, {key: by[key] for key in ("type", "items")}
        defs[section]["properties"]["by"] = {**_described(by), "oneOf": [one, several]}
    share = defs["Share"]["properties"]["share"]
    number = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
    fraction = {"type": "string", "pattern": "^[1-9][0-9]*/[1-9][0-9]*$", "examples": ["1/5"]}
    defs["Share"]["properties"]["share"] = {**_described(share), "anyOf": [number, fraction]}
    del defs["Privacy"]["properties"]["max_excess"]  # only plans of before have it

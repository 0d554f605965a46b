"""The values of a plan to its typed parts, each by itself, so that a broken one hides nothing of the rest."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from functools import cache
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from fa_core.metrics import KINDS, PRESETS, Condition, Filter, MetricSpec
from fa_core.metrics.rate import Rate
from fa_core.plan.columns import FACTS, columns_anywhere
from fa_core.plan.located import Finding, Loc
from fa_core.plan.problems import one_of, show, suggestion
from fa_core.plan.schema import DeviceSegment, EventSegment, Guardrail, Name, Plan, Segment
from fa_core.plan.training import DERIVED, METRIC, TrainPlan, derived
from fa_core.plan.words import TextAt, add_key, findings_of, keys_of, what, written

ModelT = TypeVar("ModelT", bound=BaseModel)
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_MAPPINGS = ("where", "segments", "metrics", "guardrails")
"""Fields of a plan that are read entry by entry."""


@cache
def _adapters(model: type[Plan]) -> Mapping[str, TypeAdapter[Any]]:
    """Return what validates each field of a plan that is read whole."""
    return {
        name: TypeAdapter(annotation)
        for name, annotation in get_type_hints(model, include_extras=True).items()
        if name in model.model_fields and name not in _MAPPINGS
    }


@dataclass(frozen=True, slots=True)
class FilterUse:
    """A metric's own filter, where it stands, and the tables that must be able to answer it."""

    loc: Loc
    tables: tuple[str, ...]
    where: Filter


@dataclass
class Parts:
    """The parts of a plan that are sound in themselves, and the names of those that were declared at all.

    Attributes:
        fields: every sound top-level field by name, but those below.
        segments, metrics: the sound ones by name.
        declared_segments: the names of all, so that a use of a broken one is not called unknown.
        metric_locs: where each metric stands, broken ones too.
        guardrails: the sound ones by their index.
        model: what kind of plan it is.
        filters: the filters written in metrics, broken metrics too, with their sound conditions.
        findings: what was wrong.
    """

    fields: dict[str, Any] = field(default_factory=dict)
    segments: dict[str, Segment] = field(default_factory=dict)
    metrics: dict[str, MetricSpec] = field(default_factory=dict)
    declared_segments: set[str] = field(default_factory=set)
    metric_locs: dict[str, Loc] = field(default_factory=dict)
    guardrails: dict[int, Guardrail] = field(default_factory=dict)
    filters: list[FilterUse] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    model: type[Plan] = Plan

    def plan(self) -> Plan:
        """Return the whole plan. Call it only when there are no findings."""
        return self.model(
            **self.fields,
            segments=self.segments,
            metrics=self.metrics,
            guardrails=tuple(self.guardrails[index] for index in sorted(self.guardrails)),
        )


def parts_of(values: Mapping[str, Any], text_at: TextAt, *, written: bool) -> Parts:
    """Return the parts of a plan, and findings for whatever is missing, unknown or of the wrong type.

    Args:
        values: a whole plan as plain values.
        text_at: gives the scalar at a path as it was written.
        written: whether an author wrote them. What follows from a training plan stands in its canonical form,
            and in no file: it is worked out again, and `document.from_canonical` compares the bytes.
    """
    model = TrainPlan if values.get("kind") == "TrainPlan" else Plan
    reader = _PartsReader(Parts(model=model), text_at)
    if model is TrainPlan:
        reader.read_training(values, written=written)
    else:
        reader.read(values)
    return reader.parts


@dataclass(frozen=True)
class _PartsReader:
    parts: Parts
    text_at: TextAt

    def read(self, values: Mapping[str, Any]) -> None:
        self._fields(values, leave_out=())
        self.parts.fields["where"] = self._filter(values.get("where", {}), ("where",))
        self._segments(values.get("segments", {}))
        if "metrics" in values:
            self._metrics(values["metrics"])
        self._guardrails(values.get("guardrails", []))

    def read_training(self, values: Mapping[str, Any], *, written: bool) -> None:
        for key in DERIVED if written else ():
            if key in values:
                found = f"a training plan has no {show(key)} of its own"
                self._say(
                    (key,), found, "take it out: it follows from base, method and segments", at_key=True
                )
        self._fields({key: value for key, value in values.items() if key not in DERIVED}, leave_out=DERIVED)
        self._segments(values.get("segments", {}))
        follows = derived(self.parts.fields, self.parts.segments)
        self.parts.metrics |= follows.pop("metrics")
        self.parts.metric_locs[METRIC] = ("method",)
        self.parts.fields |= {key: value for key, value in follows.items() if key != "guardrails"}

    def _fields(self, values: Mapping[str, Any], leave_out: tuple[str, ...]) -> None:
        """Read every field that is read whole, but those left out."""
        fields = {name: info for name, info in self.parts.model.model_fields.items() if name not in leave_out}
        keys = {name: text for name, text in keys_of(self.parts.model).items() if name not in leave_out}
        for key in values:
            if key not in keys:
                self._say((key,), f"unknown key {show(key)}", suggestion(key, keys), at_key=True)
        for name, info in fields.items():
            key = info.alias or name
            if info.is_required() and key not in values:
                self._say((), f"{show(key)} is missing", add_key(key, info.description or ""))
            elif name in _MAPPINGS:
                continue
            elif key in values:
                self._field(name, (key,), values[key])
            else:
                self.parts.fields[name] = info.get_default(call_default_factory=True)

    def _say(self, loc: Loc, found: str, right: str, *, at_key: bool = False) -> None:
        self.parts.findings.append(Finding(loc, found, right, at_key))

    def _field(self, name: str, loc: Loc, value: object) -> None:
        try:
            self.parts.fields[name] = _adapters(self.parts.model)[name].validate_python(value)
        except ValidationError as error:
            annotation = self.parts.model.model_fields[name].annotation
            self.parts.findings.extend(findings_of(error, loc, annotation, self.text_at))

    def _validated(self, model: type[ModelT], value: object, loc: Loc) -> ModelT | None:
        """Return the value as a model, or None with findings added."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            self.parts.findings.extend(findings_of(error, loc, model, self.text_at))
            return None

    def _filter(self, value: object, loc: Loc) -> dict[str, Condition]:
        """Return the sound conditions of a filter; findings are added for the others."""
        if not isinstance(value, dict):
            self._say(loc, what(value, self.text_at(loc)), "write `column: value` for each condition")
            return {}
        sound = {}
        for name, body in value.items():
            at: Loc = (*loc, name)
            if not self._quoted(name, body, at):
                continue
            if (condition := self._validated(Condition, body, at)) is not None:
                sound[name] = condition
        return sound

    def _quoted(self, name: str, body: object, loc: Loc) -> bool:
        """Say whether whatever a column of labels is compared with is text, with findings where it is not.

        It is asked before anything else: `2.10` is a number, and as a number it is `2.1` already.
        """
        column = {**columns_anywhere(), **FACTS}.get(name)
        if column is None or column.type != "label":
            return True
        if isinstance(body, dict):
            return "not" not in body or self._quoted(name, body["not"], (*loc, "not"))
        items = list(enumerate(body)) if isinstance(body, list) else [(None, body)]
        wrong = [(index, item) for index, item in items if isinstance(item, bool | int | Fraction | date)]
        for index, item in wrong:
            at = loc if index is None else (*loc, index)
            text = self.text_at(at)
            found = f"{show(name)} holds text, and {written(item, text)} without quotes is not"
            self._say(at, found, f'write "{text or item}" in quotes')
        return not wrong

    def _segments(self, value: object) -> None:
        if not isinstance(value, dict):
            self._say(("segments",), what(value), "write one `name: {device: …}` or `name: {event: …}` each")
            return
        for name, body in value.items():
            loc: Loc = ("segments", name)
            self.parts.declared_segments.add(name)
            self._name(name, loc)
            if not isinstance(body, dict):
                self._say(
                    loc, what(body), "write `device:` or `event:` with its values, or its edges and labels"
                )
            elif ("device" in body) == ("event" in body):
                found = (
                    "both `device` and `event` are" if "device" in body else "neither `device` nor `event` is"
                )
                self._say(loc, f"{found} given", "a segment groups by one fact of the device, or one column")
            else:
                model: type[Segment] = DeviceSegment if "device" in body else EventSegment
                if (segment := self._validated(model, body, loc)) is not None:
                    self.parts.segments[name] = segment

    def _name(self, name: str, loc: Loc) -> None:
        try:
            _NAME.validate_python(name)
        except ValidationError as error:
            for finding in findings_of(error, loc, Name, lambda _: name):
                self._say(loc, finding.found, finding.right, at_key=True)

    def _metrics(self, value: object) -> None:
        if not isinstance(value, list | dict) or not value:
            found = "no metric is written here" if isinstance(value, list | dict) else what(value)
            self._say(
                ("metrics",), found, "write a list of presets, as [false_reject_rate], or `name: {kind: …}`"
            )
        elif isinstance(value, dict):
            for name, body in value.items():
                self._name(name, ("metrics", name))
                self._metric(name, body, ("metrics", name))
        else:
            for index, name in enumerate(value):
                loc: Loc = ("metrics", index)
                if not isinstance(name, str):
                    self._say(loc, what(name, self.text_at(loc)), "in a list, write names of presets")
                elif name in self.parts.metric_locs:
                    self._say(loc, f"{show(name)} is named twice", "keep one of them")
                else:
                    self._metric(name, name, loc)

    def _metric(self, name: str, body: object, loc: Loc) -> None:
        self.parts.metric_locs[name] = loc
        if isinstance(body, str):
            body = {"preset": body}
        if not isinstance(body, dict):
            self._say(
                loc, what(body, self.text_at(loc)), "write `kind:` and its keys, or the name of a preset"
            )
            return
        chosen = self._kind(body, loc)
        if chosen is None:
            return
        model, base = chosen
        own = {key: item for key, item in body.items() if key != "preset"}
        merged = {**base, **own}
        if base and own.get("source", base["source"]) != base["source"]:
            found = f"the preset {show(str(body['preset']))} reads `{base['source']}`"
            self._say((*loc, "source"), found, "take `source` out, or write the metric out with `kind`")
            return
        if model is Rate and "kind" in own and "over" not in own:
            right = "add `over:` with the events that it is a share of, or `over: {}` for all events"
            self._say(loc, "this rate does not say what it is a share of", right, at_key=True)
        source = self._source(merged, model, loc)
        merged["source"] = source or model.sources[0]
        for key, info in model.model_fields.items():
            if info.annotation == Filter and key in own:
                merged[key] = self._filter(own[key], (*loc, key))
                if source is not None:
                    tables = (source, *(model.companions if key == "where" else ()))
                    self.parts.filters.append(FilterUse((*loc, key), tables, merged[key]))
        if merged.get("group_by") is None:
            merged["group_by"] = self.parts.fields.get("group_by") or ((),)
        if (metric := self._validated(model, merged, loc)) is not None and source is not None:
            self.parts.metrics[name] = metric

    def _kind(self, body: Mapping[str, Any], loc: Loc) -> tuple[type[MetricSpec], dict[str, Any]] | None:
        """Return the kind of a metric and what its preset says, or None with a finding added."""
        if ("kind" in body) == ("preset" in body):
            found = "both `kind` and `preset` are" if "kind" in body else "neither `kind` nor `preset` is"
            right = "give one: a preset is a kind with its keys filled in"
            self._say(loc, f"{found} given", right, at_key=True)
            return None
        key = "kind" if "kind" in body else "preset"
        names: Mapping[str, object] = KINDS if key == "kind" else PRESETS
        if not isinstance(body[key], str) or body[key] not in names:
            found = what(body[key]) if not isinstance(body[key], str) else f"unknown {key} {show(body[key])}"
            right = suggestion(str(body[key]), names)
            if key == "kind" and "did you mean" in (preset := suggestion(str(body[key]), PRESETS)):
                right = right if "did you mean" in right else preset.replace("mean `", "mean `preset: ")
            self._say((*loc, key), found, right)
            return None
        base = {} if key == "kind" else dict(PRESETS[body[key]])
        return KINDS[body["kind"] if key == "kind" else base["kind"]], base

    def _source(self, merged: Mapping[str, Any], model: type[MetricSpec], loc: Loc) -> str | None:
        """Return the table that a metric reads, or None with a finding added."""
        source = merged.get("source") or self.parts.fields.get("source")
        if source is None:
            if "source" in self.parts.fields:
                right = f"add `source:` to the plan or to the metric, {one_of(model.sources)}"
                self._say(loc, "this metric has no `source`", right, at_key=True)
            return None
        if source not in model.sources:
            at = (*loc, "source") if "source" in merged else loc
            found = f"{show(str(source))} is no table that this kind of metric reads"
            self._say(at, found, suggestion(str(source), model.sources))
            return None
        return str(source)

    def _guardrails(self, value: object) -> None:
        if not isinstance(value, list):
            self._say(("guardrails",), what(value), "write a list of `{metric: …, by: …, max: …}`")
            return
        for index, body in enumerate(value):
            if (guardrail := self._validated(Guardrail, body, ("guardrails", index))) is not None:
                self.parts.guardrails[index] = guardrail

"""The files of a rollout: its two plans, its signature, and what `fa rollout check` prints of them."""

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from fa_core.errors import BadInput

if TYPE_CHECKING:
    from fa_core.plan import Plan
    from fa_core.plan.located import Finding
    from fa_core.publication.signed import SignedDocument
    from fa_core.rollout.document import Draft, Rollout
    from fa_core.rollout.gate import Reach


def plans(draft: "Draft", path: Path, store: str) -> "Mapping[str, Plan]":
    """Return a rollout's two plans by their hash, found beside its file or in the store's log.

    Raises BadPlan where one is missing or does not fit, and where no device would heed the floor; the log is
    compared with where there is a store.
    """
    from fa_core.plan import load
    from fa_core.plan.document import plan_files
    from fa_core.rollout.floor import above_models
    from fa_core.rollout.reach import check_plans

    wanted = {draft.rollout.gate.plan, draft.rollout.live.plan}
    found: dict[str, Plan] = {}
    for file in plan_files(path.parent):
        if file.resolve() != path.resolve():
            try:
                plan = load(file, today=date.min)
            except BadInput:
                continue  # another document, or a plan that this rollout does not name
            found[plan.hash] = plan
    logged, findings = _in_log(draft.rollout, wanted - found.keys(), store)
    found |= logged
    draft.refuse([*above_models(draft.rollout), *findings, *check_plans(draft.rollout, found)])
    return {each: found[each] for each in wanted}


def _in_log(
    rollout: "Rollout", missing: Collection[str], store: str
) -> "tuple[dict[str, Plan], list[Finding]]":
    """Return those of the missing plans that the store has, and what its log says against the floor."""
    from fa_core.plan import from_canonical
    from fa_core.rollout.floor import against_log
    from fa_core.rollout.models import models
    from fa_core.rollout.states import histories
    from fa_core.store import open_store

    try:
        opening = open_store(store, create=False)
    except BadInput:
        return {}, []  # a plan that is missing is said at its place
    with opening as opened:
        kept = {}
        for each in missing:
            with suppress(BadInput):
                kept[each] = from_canonical(opened.plan(each))
        said = [each.manifest for each in models(opened)]
        registered = {each.version for each in said if each.wake_word in ("", rollout.wake_word)}
        earlier = [each.document for each in histories(opened.rollouts()).values() if each.decisions]
        return kept, list(against_log(rollout, registered, earlier))


def beside(rollout: Path) -> Path:
    """Return where the signature of a rollout's file is."""
    return rollout.with_name(rollout.name + ".sig")


def signature(rollout: Path, document: bytes) -> "SignedDocument | None":
    """Return the signed document, None where `sign` left no file. BadInput where it signs another version."""
    from fa_core.publication.signed import SignedDocument

    file = beside(rollout)
    if not file.is_file():
        return None
    try:
        body = json.loads(file.read_text(encoding="utf-8"))
        found = SignedDocument(
            "rollout", document, bytes.fromhex(body["key"]), bytes.fromhex(body["signature"])
        )
    except (ValueError, KeyError, TypeError, OSError, RecursionError):
        raise BadInput(
            f"{file}: this is no signature of a rollout; make one with `fa rollout sign`"
        ) from None
    if not found.holds:
        raise BadInput(f"{file}: it signs another version of this rollout; sign it again")
    return found


def costs(document: "Rollout", plans: "Mapping[str, Plan]") -> dict[str, str]:
    """Return what each look, each live stage and the whole costs a device, in words."""
    from fa_core.layout import compile_plan
    from fa_core.privacy.ledger import UNITS, show

    look, stage = (compile_plan(plans[each]) for each in (document.gate.plan, document.live.plan))
    unit = UNITS[look.accounting]
    total = look.cost * document.gate.looks + stage.cost * document.live_stages
    return {name: f"{unit} {show(cost)}" for name, cost in
            (("look", look.cost), ("stage", stage.cost), ("total", total))}  # fmt: skip


def print_reach(document: "Rollout", found: "Mapping[str, Reach]", title: str) -> None:
    """Print the smallest regression of each group by look. Everyone together is tested for shipping alone."""
    from fa_core.cli.text_table import table
    from fa_core.rollout.sequential import OVERALL

    looks = [f"look {number + 1}" for number in range(document.gate.looks)]
    rows = [
        (
            name,
            *("" if name == OVERALL else f"{100 * each:.2f}" for each in reach.smallest),
            f"{reach.ships:.0%}",
        )
        for name, reach in found.items()
    ]
    table(title, ("group", *looks, "an equal one ships"), rows)

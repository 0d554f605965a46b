"""The published vectors as questions: each step of a file is asked, and the answer compared.

A file is `{"what", "steps"}`, a step `{"name", "ask", "answer"}`. Steps are in order: a round is a step that
opens it and steps that follow. Steps without a name prepare others, and are reported only where they go
wrong.
"""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Final

from fa_core.conformance.adapter import Device, Json, NoAnswer, Outcome, Row
from fa_core.errors import BadInput

FILES: Final = (
    "plans", "layouts", "costs", "counts", "noise", "budgets", "gateway", "invitations", "rounds", "refusals",
    "tasks", "reports", "rollouts",
)  # fmt: skip
"""The files that are asked, in this order, each `device-NAME.json` in the folder of vectors."""

LESS: Final = Fraction(1, 10**9)
MORE: Final = Fraction(2, 10**6)
"""How far the variance of a device's share may lie below and above what is published: it is rounded up from
an exponential, which no two libraries agree upon to the last bit."""

UNSUPPORTED: Final = {"unsupported": True}


def files(folder: Path) -> list[tuple[str, list[Json]]]:
    """Return the name and steps of each file. Raises BadInput where one cannot be read."""
    found = []
    for name in FILES:
        path = folder / f"device-{name}.json"
        try:
            found.append((name, json.loads(path.read_text(encoding="utf-8"))["steps"]))
        except (OSError, ValueError, KeyError):
            raise BadInput(
                f"{path} is no file of vectors; `--vectors` names the folder tests/vectors of a checkout"
            ) from None
    return found


def run(name: str, steps: list[Json], device: Device) -> Iterator[Row]:
    """Yield a row for each step."""
    for place, step in enumerate(steps):
        outcome, detail = asked(device, step["ask"], step["answer"])
        if "name" in step or outcome != "passed":
            yield Row(name, step.get("name", f"step {place}"), outcome, detail)


def asked(device: Device, question: Json, expected: Json) -> tuple[Outcome, str]:
    """Return how a device's answer compares with the one that is right."""
    try:
        answer = device.ask(question)
    except NoAnswer as error:
        return "failed", str(error)
    if answer == UNSUPPORTED:
        return "not supported", ""
    wrong = difference(expected, answer)
    return ("failed", wrong) if wrong else ("passed", "")


def difference(expected: Json, answer: Json) -> str:
    """Return what is wrong with an answer, "" for nothing."""
    if "refused" in expected or "refused" in answer:
        right, found = (each.get("refused", "an answer") for each in (expected, answer))
        return "" if right == found else f"expected {_said(right)}, got {_said(found)}"
    for key, right in expected.items():
        if key not in answer:
            return f"{key} is missing"
        place = _differs(right, answer[key], key)
        if place:
            return place
    return ""


def _said(code: object) -> str:
    return str(code) if code == "an answer" else f"the refusal {code}"


def _differs(right: object, found: object, at: str) -> str:
    """Return where two JSON values differ, "" where they do not."""
    if at.endswith(".variance") and isinstance(right, str):
        return "" if _near(right, found) else f"{at}: expected {right} or a millionth more, got {found}"
    if isinstance(right, dict) and isinstance(found, dict):
        pairs = [(right[key], found.get(key), f"{at}.{key}") for key in right]
    elif isinstance(right, list) and isinstance(found, list) and len(right) == len(found):
        pairs = [(a, b, f"{at}[{place}]") for place, (a, b) in enumerate(zip(right, found, strict=True))]
    elif type(right) is type(found) and right == found:
        return ""
    else:
        return f"{at}: expected {_short(right)}, got {_short(found)}"
    return next((place for a, b, where in pairs if (place := _differs(a, b, where))), "")


def _near(right: str, found: object) -> bool:
    try:
        ratio = Fraction(str(found)) / Fraction(right)
    except (ValueError, ZeroDivisionError):
        return False
    return 1 - LESS <= ratio <= 1 + MORE


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"

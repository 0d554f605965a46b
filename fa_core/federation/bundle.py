"""The app bundle that a run carries: our own code as it is installed, and nothing else.

So a SuperNode and a SuperExec run the very files of the wheel, whichever copy Python finds first.
"""

import json
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from fa_core.rounds.app import KEYS

PACKAGES = ("fa_core", "clients")
COMPONENTS = {"serverapp": "fa_core.rounds.app:app", "clientapp": "clients.app:app"}


def files() -> dict[str, bytes]:
    """Return the bundle's files: path to content."""
    return {"pyproject.toml": _project().encode(), **dict(code(PACKAGES))}


def code(packages: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of every Python file of these packages, as Python finds them."""
    for package in packages:
        root = _root(package)
        for file in sorted(root.rglob("*.py")):
            yield f"{package}/{file.relative_to(root).as_posix()}", file.read_bytes()


def _root(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _project() -> str:
    keys = "\n".join(f"{name} = {json.dumps(value)}" for name, value in KEYS.items())
    parts = "\n".join(f'{name} = "{place}"' for name, place in COMPONENTS.items())
    return f"""\
[project]
name = "unheard"
version = "{version("unheard")}"
description = "Federated evaluation for voice"
dependencies = []

[tool.flwr.app]
publisher = "unheard"

[tool.flwr.app.components]
{parts}

[tool.flwr.app.config]
{keys}
"""

"""Groups of commands that import a command when it is named, not before."""

import gc
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar

import click
import typer
from typer.core import TyperCommand, TyperGroup


class LazyGroup(TyperGroup):
    """A group that lists the commands in `texts` by these texts, and imports the one that is named.

    Subclasses give `texts`: the name of each command, and how its help begins. `load` says where it is found.
    """

    texts: ClassVar[Mapping[str, str]] = {}
    modules: ClassVar[Mapping[str, str]] = {}
    """The modules of commands that are not called as these are."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, text in self.texts.items():
            self.add_command(TyperCommand(name, help=text))
        self.suggest_commands = False  # click suggests the nearest name; Typer would say it a second time

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        if name is not None and name in self.texts:
            found = load(name, self.modules.get(name, name))
        return name, found, rest


def load(name: str, module_name: str | None = None) -> click.Command:
    """Import the module `fa_core.cli.<name>`, or `module_name` there, and return the command `name` in it.

    The module has either a Typer called `app`, which is a group, or a function of its own name.
    """
    module = import_module(f"fa_core.cli.{module_name or name}")
    if not gc.isenabled():
        # `main` switched it off: what is imported stays, and looking through it for garbage, at the end once
        # more, would be a sixth of a short command.
        gc.freeze()
        gc.enable()
    if hasattr(module, "app"):
        group = typer.main.get_group(module.app)
        group.suggest_commands = False
        return group
    app = typer.Typer(add_completion=False)
    app.command(name)(getattr(module, name))
    return typer.main.get_command(app)

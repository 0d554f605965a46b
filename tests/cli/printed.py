"""Commands as documents, messages and pages print them, checked against the command line itself."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click
import typer

from fa_core.cli import build

ROOT: Final = Path(__file__).parents[2]
PLACEHOLDER: Final = re.compile(r"[A-Z][A-Z0-9_/.-]*…?")
SPAN: Final = re.compile(r"`fa ([^`]+)`")


def in_code_blocks(text: str) -> Iterator[str]:
    """Yield each line of a Markdown text's code blocks that starts with a command, continued lines joined."""
    fenced = re.findall(r"(?ms)^ *```\w*\n(.*?)^ *```", text)
    indented = re.findall(r"(?m)^ {4,}(?=fa )(.+)$", text)
    for line in [line for block in fenced for line in block.replace("\\\n", " ").splitlines()] + indented:
        command = re.sub(r"^\s*(\$ |sudo -u \S+ )?", "", line)
        if re.match(r"(fa|python|scripts/\w+|\.venv/bin/\w+)(\s|$)", command):
            yield command


def in_spans(text: str) -> Iterator[str]:
    """Yield each `fa …` that stands between backticks in prose or in a message."""
    yield from (f"fa {' '.join(found.split())}" for found in SPAN.findall(text))


def words(command: str) -> list[str]:
    """Return a command's words, without a comment, a pipe, optional brackets, or what a message fills in."""
    plain = re.sub(r"\{[^}]*\}", "X", command).replace("[", "").replace("]", "")
    found = shlex.split(plain, comments=True)
    ends = [place for place, word in enumerate(found) if word in ("|", ">", "&", "&&", "…")]
    return found[: ends[0]] if ends else found


def problem(command: str, *, whole: bool) -> str:
    """Return what is wrong with a command as printed, "" where nothing is. `whole`: it must be complete."""
    name, *arguments = words(command)
    if name != "fa":
        return _script_problem([name, *arguments])
    missing = [word for word in arguments if _ours(word) and not (ROOT / word).exists()]
    if missing:
        return f"there is no {missing[0]}"
    try:
        found, context, rest = _resolve(arguments)
        ours = rest[: rest.index("--")] if "--" in rest else rest  # what follows is another program's
        unknown = [word for word in ours if word.startswith("--") and not _option(found, word)]
        if unknown:
            return f"no option {unknown[0]}"
        if whole and not isinstance(found, click.Group):
            found.make_context(context.info_name, _filled(found, rest), parent=context.parent)
    except click.exceptions.Exit:
        return ""  # --help and --version
    except click.ClickException as error:
        return error.format_message()
    return ""


def _resolve(arguments: Sequence[str]) -> tuple[click.Command, click.Context, list[str]]:
    """Return the command that these words name, and the words that follow."""
    found: click.Command = typer.main.get_command(build())
    context, rest = click.Context(found, info_name="fa"), list(arguments)
    while isinstance(found, click.Group) and rest and not rest[0].startswith("-"):
        name, next_, rest = found.resolve_command(context, rest)
        assert next_ is not None
        found, context = next_, click.Context(next_, info_name=name, parent=context)
    return found, context, rest


def _option(command: click.Command, word: str) -> click.Parameter | None:
    name = word.split("=")[0]
    always = {"--help", "--install-completion", "--show-completion"}
    options = [each for each in command.params if name in (*each.opts, *each.secondary_opts)]
    if name in always and not options:
        return command.params[0] if command.params else click.Option(["--help"])
    return options[0] if options else None


def _filled(command: click.Command, rest: Sequence[str]) -> list[str]:
    """Put a number in the place of a placeholder where the option takes one."""
    numbers = (click.types.IntParamType, click.types.FloatParamType)
    filled = list(rest)
    for place, word in enumerate(rest[:-1]):
        option = _option(command, word) if word.startswith("--") else None
        if option and isinstance(option.type, numbers) and PLACEHOLDER.fullmatch(rest[place + 1]):
            filled[place + 1] = "1"
    return filled


def _script_problem(found: Sequence[str]) -> str:
    """Check that a script exists, and that it knows the options it is given."""
    name, rest = found[0], list(found[1:])
    if name == "python":
        name = rest.pop(0) if rest[0] != "-m" else rest.pop(1).replace(".", "/") + ".py"
    file = ROOT / name
    if name.startswith(".venv/"):
        return ""
    if not file.exists():
        return f"there is no {name}"
    source = file.read_text(encoding="utf-8") + (ROOT / "fa_core/cli/demo.py").read_text(encoding="utf-8")
    known = set(re.findall(r"--[a-z-]+", source)) | {"--devices"}
    unknown = [word for word in rest if word.startswith("--") and word not in known]
    return f"{name} has no option {unknown[0]}" if unknown else ""


def _ours(word: str) -> bool:
    """Return whether a word names a file of this repository."""
    return word.split("/")[0] in {"eval_plans", "docs", "scripts", "tests"} and not re.search(r"[X*{]", word)

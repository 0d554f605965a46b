"""`fa dashboard`: the results in a browser."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from fa_core.errors import BadInput
from fa_core.store import DEFAULT

FIRST_PORT: Final = 8501
PORTS_TRIED: Final = 20


class Role(StrEnum):
    """What somebody may do beside looking."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    REVIEWER = "reviewer"


def dashboard(
    store: Annotated[str, typer.Option(help="A folder, or postgresql://…")] = DEFAULT,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help=f"The port to listen on; the first that is free from {FIRST_PORT} on where left out.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; this machine alone by default.")
    ] = "127.0.0.1",
    hostname: Annotated[
        list[str] | None, typer.Option(help="A host name under which it is reached; may be repeated.")
    ] = None,
    base_path: Annotated[
        str, typer.Option(help="The path under which a proxy serves it, such as /voice.", show_default=False)
    ] = "",
    fleet: Annotated[
        list[Path] | None,
        typer.Option(help="A fleet directory that plans may be launched over; may be repeated."),
    ] = None,
    plans: Annotated[Path, typer.Option(help="A folder of plans to start from.")] = Path("eval_plans"),
    password_file: Annotated[
        Path | None,
        typer.Option(help="Who may come in: lines of name:roles:argon2 hash.", show_default=False),
    ] = None,
    add_user: Annotated[
        str | None, typer.Option(help="Write a person to the password file, and end.", show_default=False)
    ] = None,
    role: Annotated[list[Role] | None, typer.Option(help="With --add-user: what they may do.")] = None,
    user_header: Annotated[
        str | None,
        typer.Option(help="The header by which a trusted proxy says who somebody is.", show_default=False),
    ] = None,
    roles_header: Annotated[
        str | None, typer.Option(help="The header by which it says their roles.", show_default=False)
    ] = None,
    proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="The address of a trusted proxy, whose X-Forwarded-For is read, too; may be repeated. "
            "With --user-header, 127.0.0.1 if left out.",
        ),
    ] = None,
    log_key: Annotated[
        str | None,
        typer.Option(help="The log's public key, 64 hex digits, to check it with.", show_default=False),
    ] = None,
    witness_key: Annotated[
        str | None, typer.Option(help="The witness's public key, 64 hex digits.", show_default=False)
    ] = None,
) -> None:
    """Open the results in a browser: on this machine alone, unless you say who else may come in."""
    if add_user is not None:
        _add_user(password_file, add_user, role or [])
        return
    # Imported here: a web server and a charting library, for which no other command should wait.
    from dashboard import serve, settings
    from dashboard.auth.middleware import LOOPBACK, Access, ProxyTrust
    from dashboard.auth.users import ROLES, User, read_passwords
    from fa_core.cli.report import report_of
    from fa_core.cli.rollout_acting import operated
    from fa_core.rounds.keys import keys_folder

    base = _base_path(base_path)
    address = serve.Address(host, FIRST_PORT if port is None else port, base)
    trust = None if user_header is None else ProxyTrust(user_header, roles_header)
    proxies = proxy or ([] if trust is None else ["127.0.0.1", "::1"])
    folder = settings.folder_of(store)
    names = LOOPBACK | {host} | set(hostname or ())
    access = Access(
        hosts=frozenset(name.lower() for name in names) if address.loopback or hostname else None,
        folder=folder,
        local=User("this machine", frozenset(ROLES)),
        passwords=None if password_file is None else read_passwords(password_file),
        proxy=trust,
        proxies=frozenset(proxies),
        base=base,
    )
    chosen = settings.Settings(
        store=store,
        folder=folder,
        plans=plans if plans.is_dir() else None,
        fleets=tuple(fleet or ()),
        base=base,
        report=report_of,
        operate=operated if keys_folder(store).is_dir() else None,
        log_key=_key("--log-key", log_key),
        witness_key=_key("--witness-key", witness_key),
    )
    serve.serve(
        chosen,
        address,
        access,
        lambda text: typer.echo(f"fa dashboard: {text}"),
        PORTS_TRIED if port is None else 1,
    )


def _base_path(text: str) -> str:
    """Return the path without the slash at its end. Raises BadInput for anything that is no plain path."""
    path = text.rstrip("/")
    if path and re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path) is None:
        raise BadInput(f"--base-path {text}: write a path such as /voice, of letters, digits, `-`, `_`, `.`")
    return path


def _add_user(file: Path | None, name: str, roles: list[Role]) -> None:
    from dashboard.auth.users import add_user

    if file is None:
        raise BadInput("--add-user needs --password-file FILE, the file to write to")
    password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    add_user(file, name, [each.value for each in roles], password)
    typer.echo(f"{file}: {name} may come in as {', '.join(each.value for each in roles) or 'viewer'}")


def _key(option: str, text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise BadInput(f"{option}: a public key is 64 hex digits")
    return key

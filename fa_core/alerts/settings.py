"""`alerts.toml`, beside the store: where alerts go."""

import re
import secrets
import stat
import tomllib
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fa_core.errors import BadInput, problems
from fa_core.store import DEFAULT

CONFIG: Final = "alerts.toml"
SECRET: Final = "webhook.secret"  # noqa: S105 - the name of a file
LEAST_SECRET: Final = 32

TEXT: Final = """\
# Where alerts of this store go. `fa run`, `fa schedule --run` and `fa alerts send` send them, and
# `fa alerts test` sends one to try it. Take out the part that you do not use.
budget_below = 0.2          # alert when less than this share of a year's or a plan family's budget is left

[webhook]
url = "https://example.org/hooks/unheard"
secret_file = "webhook.secret"      # signs each request; give the receiver a copy

[email]
host = "smtp.example.org"
port = 587
security = "starttls"               # starttls, tls or none
sender = "unheard@example.org"
to = ["team@example.org"]
user = ""                           # with a password in password_file, where the server asks for one
password_file = ""
"""

_ADDRESS = re.compile(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Webhook(_Section):
    """An address that alerts are posted to, and the file of the secret that signs them."""

    url: str
    secret_file: str

    @field_validator("url")
    @classmethod
    def _plain(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ValueError("write an address such as https://example.org/hooks/unheard, without a password")
        return url


class Email(_Section):
    """A mail server and the addresses that alerts are sent to."""

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    sender: str
    to: Annotated[list[str], Field(min_length=1, max_length=50)]
    user: str = ""
    password_file: str = ""

    @field_validator("sender", "to")
    @classmethod
    def _addresses(cls, value: str | list[str]) -> str | list[str]:
        for each in [value] if isinstance(value, str) else value:
            if _ADDRESS.fullmatch(each) is None:
                raise ValueError(f"{each!r} is no e-mail address")
        return value

    @model_validator(mode="after")
    def _both(self) -> Self:
        if bool(self.user) != bool(self.password_file):
            raise ValueError("`user` and `password_file` go together")
        if self.user and self.security == "none":
            raise ValueError("a password needs `security` starttls or tls: it would be sent readable")
        return self


class Settings(_Section):
    """`alerts.toml`. `budget_below` is a share above 0 and below 1."""

    budget_below: Annotated[float, Field(gt=0, lt=1)] = 0.2
    webhook: Webhook | None = None
    email: Email | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.webhook is None and self.email is None:
            raise ValueError("give a [webhook] or an [email]: alerts go nowhere")
        return self

    @property
    def share(self) -> Fraction:
        """`budget_below`, exactly as it was written."""
        return Fraction(str(self.budget_below))


def alerts_folder(store: str) -> Path:
    """Return where the alerts of a store are configured and wait: its folder, or the default one."""
    return Path(DEFAULT if "://" in store else store)


def configured(store: str) -> bool:
    """Return whether a store has alerts."""
    return (alerts_folder(store) / CONFIG).is_file()


def read_settings(folder: Path) -> Settings:
    """Return the settings in a folder. Raises BadInput where there are none, or they are wrong."""
    file = folder / CONFIG
    try:
        return Settings(**tomllib.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise BadInput(f"there is no {file}; `fa alerts init` writes one to fill in") from None
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise BadInput("\n".join(f"{file}: {each}" for each in problems(error))) from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file} is not TOML: {error}") from None


def write_settings(folder: Path) -> Path:
    """Write settings to fill in, and a new secret. Raises BadInput where there are some already."""
    file, secret = folder / CONFIG, folder / SECRET
    for path in (file, secret):
        if path.exists():
            raise BadInput(f"{path} exists already; it was left as it is")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        secret.touch(mode=0o600, exist_ok=False)
        secret.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
        file.write_text(TEXT, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{file} cannot be written: {error.strerror}") from None
    return file


def read_secret(path: Path, least: int = 1) -> bytes:
    """Return the secret in a file, without the line's end. Raises BadInput where others can read it too, or
    where it has fewer than `least` characters."""
    try:
        mode = path.stat().st_mode
        secret = path.read_bytes().strip()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise BadInput(f"{path} can be read by others; `chmod 600` it")
    if len(secret) < least:
        raise BadInput(f"{path}: a secret has at least {least} characters")
    return secret

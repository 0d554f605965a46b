"""Users: their roles, the password file, and the sessions of those who are signed in.

A password file has one line a user, `name:role,role:argon2 hash`; `fa dashboard --add-user` writes it. Every user
may view (`viewer`); an `operator` may launch runs, a `reviewer` sees the audit trail and verifies the log.
"""

import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from fa_core.errors import BadInput

Role = Literal["viewer", "operator", "reviewer"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}")
SESSION_SECONDS: Final = 12 * 3600.0
LEAST_PASSWORD: Final = 10

_hasher = PasswordHasher()
_UNKNOWN_USER: Final = _hasher.hash(secrets.token_hex(16))


@dataclass(frozen=True, slots=True)
class User:
    """A signed-in user."""

    name: str
    roles: frozenset[Role]

    def may(self, role: Role) -> bool:
        """Return whether this user has a role; every user is a viewer."""
        return role == "viewer" or role in self.roles


def roles_of(text: str) -> frozenset[Role]:
    """Return the roles in a list such as `operator,reviewer`; unknown words are ignored."""
    named = {word.strip() for word in text.split(",")}
    return frozenset(role for role in ROLES if role in named)


@dataclass(frozen=True, slots=True)
class Passwords:
    """A password file: users and their argon2 hashes, by name."""

    people: Mapping[str, tuple[User, str]]

    def check(self, name: str, password: str) -> User | None:
        """Return the user, None for a wrong name or password. Takes equally long for an unknown name."""
        user, known = self.people.get(name, (None, _UNKNOWN_USER))
        try:
            _hasher.verify(known, password)
        except Argon2Error:
            return None
        return user


def read_passwords(path: Path) -> Passwords:
    """Read a password file. Raises BadInput, naming the line, for anything else; the message never holds a hash."""
    try:
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise BadInput(f"{path}: others may write to it; run `chmod 600 {path}`")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadInput(f"{path}: cannot be read: {reason}; `fa dashboard --add-user NAME` makes it") from None
    people: dict[str, tuple[User, str]] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            user, known = _person(line, f"{path}:{number}")
            if user.name in people:
                raise BadInput(f"{path}:{number}: {user.name} is listed twice; remove one of the lines")
            people[user.name] = (user, known)
    if not people:
        raise BadInput(f"{path}: it has no user; `fa dashboard --add-user NAME` adds one")
    return Passwords(people)


def _person(line: str, where: str) -> tuple[User, str]:
    name, _, rest = line.partition(":")
    roles, _, known = rest.partition(":")
    try:
        _hasher.check_needs_rehash(known)
    except InvalidHashError:
        raise BadInput(
            f"{where}: a line is `name:role,role:argon2 hash`; the third field is not an argon2 hash"
        ) from None
    if not NAME.fullmatch(name):
        raise BadInput(f"{where}: a name is 1 to 64 letters, digits or . _ @ -")
    if len(roles_of(roles)) != len(roles.split(",")):
        raise BadInput(f"{where}: the roles are {', '.join(ROLES)}, with commas between")
    return User(name, roles_of(roles)), known


def add_user(path: Path, name: str, roles: Iterable[Role], password: str) -> None:
    """Write a user to a password file, replacing one of the same name. Raises BadInput."""
    chosen = frozenset(roles)
    if not NAME.fullmatch(name):
        raise BadInput("a name is 1 to 64 letters, digits or . _ @ -")
    if len(password) < LEAST_PASSWORD:
        raise BadInput(f"a password has at least {LEAST_PASSWORD} characters")
    people = dict(read_passwords(path).people) if path.exists() else {}
    people[name] = (User(name, chosen), _hasher.hash(password))
    lines = [
        f"{user.name}:{','.join(sorted(user.roles)) or 'viewer'}:{known}\n" for user, known in people.values()
    ]
    draft = path.with_name(path.name + ".new")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(lines)
        draft.replace(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from None


class Sessions:
    """The signed-in users, by an unguessable key that is kept in their browser's cookie. In memory only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, tuple[User, float]] = {}

    def open(self, user: User) -> str:
        """Start a session of a user and return its key."""
        key, now = secrets.token_urlsafe(32), time.monotonic()
        with self._lock:
            self._users = {key: value for key, value in self._users.items() if value[1] > now}
            self._users[key] = (user, now + SESSION_SECONDS)
        return key

    def find(self, key: str) -> User | None:
        """Return the user of a session key, None where it is unknown or has expired."""
        with self._lock:
            user, until = self._users.get(key, (None, 0.0))
        return user if time.monotonic() < until else None

    def close(self, key: str) -> None:
        """End a session."""
        with self._lock:
            self._users.pop(key, None)


SESSIONS: Final = Sessions()
"""The sessions of this process: the middleware opens them, the pages look them up."""

"""Finding the alerts of a store, queueing them, and sending what is due."""

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fa_core.alerts.alert import Alert, alerts_of, trial
from fa_core.alerts.mail import send
from fa_core.alerts.queue import Queue, open_queue
from fa_core.alerts.settings import LEAST_SECRET, Settings, read_secret, read_settings
from fa_core.alerts.webhook import NotSent, post
from fa_core.errors import BadInput
from fa_core.store import Store

Channel = Callable[[Alert, datetime], None]
"""Sends an alert. Raises NotSent."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came of sending: how many arrived, wait, and were given up, and why some did not arrive."""

    sent: int
    waiting: int
    given_up: int
    problems: tuple[str, ...]


def deliver(store: Store, folder: Path, now: datetime, *, everything: bool = False) -> Delivery:
    """Queue what the store gives rise to and send what is due; with `everything`, what failed before too.

    Raises BadInput for wrong settings. While another process is sending, nothing is sent here.
    """
    settings = read_settings(folder)
    channels = _channels(settings, folder)
    with open_queue(folder) as queue:
        queue.add(alerts_of(store, now, settings.share), channels, now)
        return _send(queue, channels, folder, now, everything=everything)


def deliver_trial(folder: Path, now: datetime) -> Delivery:
    """Send a test alert now. What waits stays as it is."""
    channels = _channels(read_settings(folder), folder)
    problems = []
    for name, channel in channels.items():
        try:
            channel(trial(now), now)
        except NotSent as error:
            problems.append(f"{name}: {error}")
    return Delivery(len(channels) - len(problems), 0, 0, tuple(problems))


def _channels(settings: Settings, folder: Path) -> Mapping[str, Channel]:
    """Return the channels by name. Raises BadInput where a secret cannot be read."""
    channels: dict[str, Channel] = {}
    if (webhook := settings.webhook) is not None:
        secret = read_secret(folder / webhook.secret_file, LEAST_SECRET)
        channels["webhook"] = lambda alert, now: post(webhook.url, secret, alert, now)
    if (email := settings.email) is not None:
        password = _password(folder / email.password_file) if email.password_file else None
        channels["email"] = lambda alert, now: send(email, password, alert, now)
    return channels


def _password(path: Path) -> str:
    try:
        return read_secret(path).decode()
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text") from None


def _send(
    queue: Queue, channels: Mapping[str, Channel], folder: Path, now: datetime, *, everything: bool
) -> Delivery:
    sent, problems = 0, []
    with _alone(folder) as alone:
        for each in queue.due(now, everything=everything) if alone else []:
            channel = channels.get(each.channel)
            if channel is None:
                continue
            try:
                channel(each.alert, now)
            except NotSent as error:
                queue.failed(each, str(error), now)
                problems.append(f"{each.channel}: {error}")
            else:
                queue.sent(each, now)
                sent += 1
    left = [each for each in queue.all() if each.sent is None]
    given_up = sum(each.given_up(now) for each in left)
    return Delivery(sent, len(left) - given_up, given_up, tuple(dict.fromkeys(problems)))


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Yield whether no other process is sending the alerts of this folder."""
    with (folder / "alerts.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True

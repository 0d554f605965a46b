"""Sending alerts after a command that may give rise to some. What goes wrong there changes no exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import typer

from fa_core.errors import UnheardError


@contextmanager
def alerting(store: str) -> Iterator[None]:
    """Send the alerts of a store when the command ends, whether or not it succeeds."""
    try:
        yield
    except UnheardError:
        send_alerts(store)
        raise
    send_alerts(store)


def send_alerts(store: str) -> None:
    """Send the alerts of a store that are due, if any are configured, and say so on standard error."""
    from fa_core.alerts.settings import alerts_folder, configured

    if not configured(store):
        return
    from fa_core.alerts.deliver import deliver
    from fa_core.store import open_store

    try:
        with open_store(store, create=False) as opened:
            done = deliver(opened, alerts_folder(store), datetime.now(UTC))
    except UnheardError as error:
        typer.echo(f"fa: alerts were not sent: {error}", err=True)
        return
    if done.sent:
        typer.echo(f"fa: {done.sent} alert{'' if done.sent == 1 else 's'} sent", err=True)
    if done.problems:
        waiting = f"{done.waiting} alert{'' if done.waiting == 1 else 's'} waiting"
        typer.echo(f"fa: {waiting}: {'; '.join(done.problems)}", err=True)

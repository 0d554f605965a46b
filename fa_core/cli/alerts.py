"""`fa alerts`: a webhook and an e-mail when a guardrail breaks, a round fails or a budget runs low."""

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from fa_core.errors import RoundFailed
from fa_core.store import DEFAULT

app = typer.Typer(
    help="Send a webhook or an e-mail when a guardrail breaks, a round fails or a budget runs low.",
    no_args_is_help=True,
)

Where = Annotated[str, typer.Option("--store", help="A folder, or postgresql://…")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class NotDelivered(RoundFailed):
    """An alert did not arrive. It waits, and is tried again."""


@app.command()
def init(store: Where = DEFAULT) -> None:
    """Write alerts.toml beside the store, to fill in, and a secret that signs webhooks."""
    from fa_core.alerts.settings import alerts_folder, write_settings

    file = write_settings(alerts_folder(store))
    typer.echo(f"{file}: fill it in, then try it with `fa alerts test`")


@app.command("test")
def try_out(store: Where = DEFAULT) -> None:
    """Send a test alert to every channel, now. Exit code 4 where one does not arrive."""
    from fa_core.alerts.deliver import deliver_trial
    from fa_core.alerts.settings import alerts_folder

    done = deliver_trial(alerts_folder(store), datetime.now(UTC))
    if done.problems:
        raise NotDelivered("\n".join(done.problems))
    typer.echo(f"sent to {done.sent} channel{'' if done.sent == 1 else 's'}")


@app.command()
def send(
    store: Where = DEFAULT,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what failed and would be tried again later.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send the alerts that are due. Exit code 4 where one does not arrive; it stays queued."""
    from dataclasses import asdict

    from fa_core.alerts.deliver import deliver
    from fa_core.alerts.settings import alerts_folder
    from fa_core.store import open_store

    with open_store(store, create=False) as opened:
        done = deliver(opened, alerts_folder(store), datetime.now(UTC), everything=everything)
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=2))
    else:
        given_up = f", {done.given_up} given up" if done.given_up else ""
        typer.echo(f"{done.sent} sent, {done.waiting} waiting{given_up}")
    if done.problems:
        raise NotDelivered("\n".join(done.problems))


@app.command("list")
def list_alerts(store: Where = DEFAULT, as_json: AsJson = False) -> None:
    """List the alerts, oldest first: what was sent, what waits and until when, and what failed."""
    from fa_core.alerts.queue import open_queue
    from fa_core.alerts.settings import alerts_folder, read_settings
    from fa_core.canonical_json import utc_text
    from fa_core.cli.text_table import table

    folder, now = alerts_folder(store), datetime.now(UTC)
    read_settings(folder)
    with open_queue(folder) as queue:
        found = queue.all()
    if as_json:
        rows = [
            {
                "id": each.alert.id,
                "kind": each.alert.kind,
                "at": each.alert.at,
                "title": each.alert.title,
                "text": each.alert.text,
                "channel": each.channel,
                "attempts": each.attempts,
                "sent": None if each.sent is None else utc_text(each.sent),
                "next": None if each.sent or each.given_up(now) else utc_text(each.next),
                "problem": each.problem,
            }
            for each in found
        ]
        typer.echo(json.dumps({"alerts": rows}, indent=2))
        return
    lines = []
    for each in found:
        state = f"sent {each.sent:%Y-%m-%d %H:%M}" if each.sent else f"waits until {each.next:%Y-%m-%d %H:%M}"
        state = "given up" if each.given_up(now) else state
        lines.append((each.alert.at[:16], each.channel, state, each.alert.title, each.problem))
    table(f"{len(found)} alerts", ("at", "channel", "", "alert", "problem"), lines)

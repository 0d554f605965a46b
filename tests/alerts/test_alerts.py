"""Alerts: what a store gives rise to, that each arrives, signed, and that restarts and offline lose none."""

import hashlib
import hmac
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fa_core.alerts.alert import Alert, alerts_of
from fa_core.alerts.deliver import Delivery, deliver
from fa_core.alerts.queue import GIVEN_UP_AFTER, open_queue
from fa_core.alerts.settings import read_settings, write_settings
from fa_core.alerts.webhook import signature
from fa_core.cli import build
from fa_core.errors import BadInput
from fa_core.store import open_store
from tests.alerts.receivers import http_receiver, smtp_receiver
from tests.ports import free_ports
from tests.store.samples import NOW, announce, charge, charge_for, make_release, plan, release_id, run

SECRET = "0123456789abcdef" * 4
LATER = NOW + timedelta(hours=1)
ROOT = Path(__file__).resolve().parents[2]


def configure(folder: Path, *, webhook: str = "", smtp: int = 0, more: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    secret = folder / "webhook.secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    text = "budget_below = 0.2\n"
    if webhook:
        text += f'[webhook]\nurl = "{webhook}"\nsecret_file = "webhook.secret"\n'
    if smtp:
        text += f'[email]\nhost = "127.0.0.1"\nport = {smtp}\nsecurity = "none"\n'
        text += 'sender = "unheard@example.org"\nto = ["a@example.org", "b@example.org"]\n'
    (folder / "alerts.toml").write_text(text + more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with one release that breaks a guardrail, and one round that failed."""
    with open_store(tmp_path) as store:
        run(store, make_release(0))
        failed = make_release(1)
        announce(store, failed.plan)
        charge(store, charge_for(failed))
        reason = "too few devices joined: 12 of at least 50"
        store.fail(failed.id, failed.plan, failed.population, "join", reason, NOW)
    return tmp_path


def found(folder: Path, now: datetime = LATER, below: Fraction = Fraction(1, 5)) -> list[Alert]:
    with open_store(folder) as store:
        return alerts_of(store, now, below)


def send(folder: Path, now: datetime = LATER, *, everything: bool = False) -> Delivery:
    with open_store(folder) as store:
        return deliver(store, folder, now, everything=everything)


def test_a_broken_guardrail_and_a_failed_round_are_alerts(folder: Path) -> None:
    broken, failed = sorted(found(folder), key=lambda alert: alert.kind)
    assert (broken.kind, broken.release) == ("guardrail_broken", release_id(0))
    assert broken.text == "false_reject_rate (max 0.08): en-IN misses more than 8 in 100."
    assert (failed.kind, failed.release) == ("round_failed", release_id(1))
    assert "too few devices joined" in failed.text
    assert found(folder) == found(folder)


def test_what_is_older_than_a_week_is_no_alert(folder: Path) -> None:
    assert found(folder, NOW + timedelta(days=8)) == []


def test_a_budget_is_low_when_a_charge_takes_it_below_the_share(tmp_path: Path) -> None:
    """Whatever came before and comes after: one alert, for the charge that crossed."""
    with open_store(tmp_path) as store:
        for number in range(7):
            release = replace(make_release(number), created=NOW + timedelta(days=8 * number))
            asked = replace(charge_for(release), cost=Fraction(1, 4), epsilon=Fraction(100), alpha=None)
            announce(store, release.plan)
            weeks = timedelta(days=8 * number)
            asked = replace(
                asked, window_start=asked.window_start + weeks, window_end=asked.window_end + weeks
            )
            if number < 4:
                charge(store, asked)
            at = release.created + timedelta(hours=1)
            low = [alert for alert in alerts_of(store, at, Fraction(1, 5)) if alert.kind == "budget_low"]
            assert [alert.release for alert in low] == ([release.id] if number == 3 else []), number
            if low:
                assert "is left of the family budget of wake-word-weekly" in low[0].text


def test_an_alert_arrives_once_by_each_channel_and_is_signed(folder: Path) -> None:
    with http_receiver() as posted, smtp_receiver() as mailed:
        configure(folder, webhook=posted.url, smtp=mailed.port)
        assert send(folder) == Delivery(4, 0, 0, ())
        assert send(folder, LATER + timedelta(days=1)) == Delivery(0, 0, 0, ())
    assert len(posted.requests) == 2
    for path, headers, body in posted.requests:
        assert path == "/hooks/unheard"
        assert headers["Content-Type"] == "application/json"
        parts = dict(part.split("=") for part in headers["X-Unheard-Signature"].split(","))
        digest = hmac.new(SECRET.encode(), parts["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(parts["v1"], digest)
        assert int(parts["t"]) == int(LATER.timestamp())
        assert headers["X-Unheard-Alert"] == json.loads(body)["id"]
    broken = next(json.loads(body) for _, _, body in posted.requests if b"guardrail_broken" in body)
    assert broken["title"] == "wake-word-weekly: the guardrail on false_reject_rate is broken"
    assert len(mailed.mail) == 2
    sender, recipients, text = next(each for each in mailed.mail if "guardrail" in each[2]["Subject"])
    assert (sender, recipients) == ("unheard@example.org", ["a@example.org", "b@example.org"])
    assert "en-IN misses more than 8 in 100" in text.get_content()
    assert text["Auto-Submitted"] == "auto-generated"
    assert len({each[2]["Message-ID"] for each in mailed.mail}) == 2


def test_another_secret_does_not_verify() -> None:
    at = NOW
    assert signature(b"a" * 32, b"{}", at) != signature(b"b" * 32, b"{}", at)
    assert signature(b"a" * 32, b"{}", at) != signature(b"a" * 32, b"{ }", at)
    assert signature(b"a" * 32, b"{}", at) != signature(b"a" * 32, b"{}", at + timedelta(seconds=1))


def test_offline_and_restarts_lose_nothing(folder: Path) -> None:
    """Nobody listens at first. Each attempt is a new queue, as after a restart of the process."""
    port = free_ports(2)
    configure(folder, webhook=f"http://127.0.0.1:{port}/x", smtp=port + 1)
    first = send(folder)
    assert (first.sent, first.waiting) == (0, 4)
    assert any("cannot be reached" in problem for problem in first.problems)
    with http_receiver(port) as posted, smtp_receiver(port + 1) as mailed:
        assert send(folder, LATER + timedelta(seconds=59)) == Delivery(0, 4, 0, ()), "it waits a minute"
        assert send(folder, LATER + timedelta(seconds=60)).sent == 4
        assert send(folder, LATER + timedelta(days=1)).sent == 0
    assert (len(posted.requests), len(mailed.mail)) == (2, 2)


def test_the_wait_doubles_up_to_six_hours_and_ends_after_a_week(folder: Path) -> None:
    with http_receiver() as posted:
        posted.status = 503
        configure(folder, webhook=posted.url)
        now, waits = LATER, []
        while (done := send(folder, now)).waiting:
            assert done.problems == ("webhook: the receiver answered 503 Service Unavailable",)
            with open_queue(folder) as queue:
                next_ = min(each.next for each in queue.all())
            waits.append(next_ - now)
            now = next_
        assert waits[:4] == [timedelta(minutes=minutes) for minutes in (1, 2, 4, 8)]
        assert max(waits) == timedelta(hours=6)
        assert now - LATER > GIVEN_UP_AFTER
        assert done == Delivery(0, 0, 2, ())
        posted.status = 204
        assert send(folder, now + timedelta(days=1), everything=True).sent == 0


def test_a_person_may_try_at_once(folder: Path) -> None:
    with http_receiver() as posted:
        configure(folder, webhook=posted.url)
        posted.status = 500
        assert send(folder).sent == 0
        posted.status = 200
        assert send(folder, everything=True).sent == 2


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404])
def test_a_redirect_or_a_refusal_is_no_delivery(folder: Path, status: int) -> None:
    with http_receiver() as posted:
        configure(folder, webhook=posted.url)
        posted.status = status
        assert send(folder).sent == 0
        assert {path for path, _, _ in posted.requests} == {"/hooks/unheard"}


def test_mail_that_one_address_refuses_is_tried_again(folder: Path) -> None:
    with smtp_receiver() as mailed:
        configure(folder, smtp=mailed.port)
        mailed.refuse = "b@example.org"
        assert send(folder).problems == ("email: the mail server refused 1 of 2 addresses",)


def test_a_killed_sender_sends_again_rather_than_never(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies after the receiver took the alert, before that is recorded: the same id arrives twice."""
    from fa_core.alerts.queue import Queue

    with http_receiver() as posted:
        configure(folder, webhook=posted.url)
        with monkeypatch.context() as patched:

            def die(*_: object) -> None:
                raise KeyboardInterrupt

            patched.setattr(Queue, "sent", die)
            with pytest.raises(KeyboardInterrupt):
                send(folder)
        assert send(folder).sent == 2
    ids = [headers["X-Unheard-Alert"] for _, headers, _ in posted.requests]
    assert (len(ids), len(set(ids))) == (3, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "give a [webhook] or an [email]"),
        ("[webhook]\nurl = 'ftp://x'\nsecret_file = 'webhook.secret'", "write an address such as https"),
        ("[webhook]\nurl = 'https://u:p@x/'\nsecret_file = 'webhook.secret'", "without a password"),
        ("[webhook]\nurl = 'https://x/'", "webhook.secret_file: Field required"),
        ("[webhook]\nurl = 'https://x/'\nsecret_file = 'none'", "cannot be read"),
        ("[email]\nhost = 'x'\nsender = 'a'\nto = ['b@c']", "'a' is no e-mail address"),
        ("[email]\nhost = 'x'\nsender = 'a@b'\nto = []", "email.to"),
        ("[email]\nhost = 'x'\nsender = 'a@b'\nto = ['b@c\\nBcc: d@e']", "is no e-mail address"),
        ("[email]\nhost = 'x'\nsender = 'a@b'\nto = ['b@c']\nuser = 'a'", "`user` and `password_file`"),
        ("budget_below = 2", "budget_below"),
        ("teh = 1", "teh"),
        ("[webhook", "is not TOML"),
    ],
)
def test_wrong_settings_are_named(folder: Path, text: str, message: str) -> None:
    configure(folder)
    (folder / "alerts.toml").write_text(text)
    with pytest.raises(BadInput) as caught:
        send(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize(("secret", "mode"), [("short", 0o600), (SECRET, 0o644)])
def test_a_weak_or_readable_secret_is_refused(folder: Path, secret: str, mode: int) -> None:
    configure(folder, webhook="http://127.0.0.1:1/")
    (folder / "webhook.secret").write_text(secret)
    (folder / "webhook.secret").chmod(mode)
    with pytest.raises(BadInput, match=r"webhook\.secret"):
        send(folder)


def test_settings_are_written_once_with_a_secret_of_their_own(tmp_path: Path) -> None:
    write_settings(tmp_path)
    assert read_settings(tmp_path).budget_below == 0.2
    assert (tmp_path / "webhook.secret").stat().st_mode & 0o077 == 0
    with pytest.raises(BadInput, match="exists already"):
        write_settings(tmp_path)


def test_the_command_line_end_to_end_with_a_restart(tmp_path: Path) -> None:
    """As processes: offline first, then a receiver, then nothing more to send."""
    now = datetime.now(UTC)
    with open_store(tmp_path) as store:
        run(store, replace(make_release(0), created=now))
    port = free_ports()
    configure(tmp_path, webhook=f"http://127.0.0.1:{port}/x")

    def fa(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "fa_core.cli", "alerts", *arguments, "--store", str(tmp_path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    offline = fa("send")
    assert (offline.returncode, offline.stdout) == (4, "0 sent, 1 waiting\n")
    assert offline.stderr.startswith("fa: webhook: the receiver cannot be reached")
    listed = json.loads(fa("list", "--json").stdout)["alerts"]
    assert [(each["kind"], each["attempts"], each["sent"]) for each in listed] == [
        ("guardrail_broken", 1, None)
    ]
    with http_receiver(port) as posted:
        assert fa("send", "--all").stdout == "1 sent, 0 waiting\n"
        assert fa("send", "--all").stdout == "0 sent, 0 waiting\n"
        assert fa("test").stdout == "sent to 1 channel\n"
    assert [json.loads(body)["kind"] for _, _, body in posted.requests] == ["guardrail_broken", "test"]


def test_without_settings_the_command_says_how_to_make_some(tmp_path: Path) -> None:
    with open_store(tmp_path):
        pass
    result = CliRunner().invoke(build(), ["alerts", "send", "--store", str(tmp_path)])
    assert "`fa alerts init` writes one" in str(result.exception)
    assert json.loads(plan())["metadata"]["name"] == "wake-word-weekly"

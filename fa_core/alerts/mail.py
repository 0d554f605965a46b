"""Sending an alert by e-mail, as plain text."""

import smtplib
import ssl
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from hashlib import sha256
from typing import Final

from fa_core.alerts.alert import Alert
from fa_core.alerts.settings import Email
from fa_core.alerts.webhook import NotSent

SECONDS: Final = 20.0


def message(email: Email, alert: Alert, now: datetime) -> EmailMessage:
    """Return the message. Its Message-ID follows from the alert: mail programs show a second copy once."""
    made = EmailMessage()
    made["Subject"] = alert.title
    made["From"] = email.sender
    made["To"] = ", ".join(email.to)
    made["Date"] = format_datetime(now)
    domain = email.sender.rpartition("@")[2]
    made["Message-ID"] = f"<{sha256(alert.id.encode()).hexdigest()[:32]}.unheard@{domain}>"
    made["Auto-Submitted"] = "auto-generated"
    facts = (
        ("plan", alert.plan),
        ("release", alert.release),
        ("population", alert.population),
        ("at", alert.at),
    )
    lines = [alert.text, "", *(f"{name}: {value}" for name, value in facts if value)]
    if alert.kind == "guardrail_broken":
        lines += ["", f"fa results show {alert.release[:12]}"]
    made.set_content("\n".join(lines) + "\n")
    return made


def send(email: Email, password: str | None, alert: Alert, now: datetime) -> None:
    """Send an alert to every address. Raises NotSent where the server does not take it for all of them."""
    try:
        with _connected(email) as server:
            if email.security == "starttls":
                server.starttls(context=ssl.create_default_context())
            if password is not None:
                server.login(email.user, password)
            refused = server.send_message(message(email, alert, now))
    except smtplib.SMTPAuthenticationError:
        raise NotSent("the mail server refuses the user and password") from None
    except (smtplib.SMTPException, OSError) as error:
        raise NotSent(f"the mail server did not take it: {error}") from None
    if refused:
        raise NotSent(f"the mail server refused {len(refused)} of {len(email.to)} addresses")


def _connected(email: Email) -> smtplib.SMTP:
    if email.security == "tls":
        context = ssl.create_default_context()
        return smtplib.SMTP_SSL(email.host, email.port, timeout=SECONDS, context=context)
    return smtplib.SMTP(email.host, email.port, timeout=SECONDS)

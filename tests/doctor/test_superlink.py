"""The findings on a SuperLink: whether it answers, its certificate, and its clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from fa_core.doctor.superlink import superlink
from fa_core.federation.certificates import make_tls
from tests.deployment.https import serving


@contextmanager
def answering(folder: Path, ahead: timedelta | None) -> Iterator[str]:
    """Serve over TLS with the certificate in a folder, the clock off by `ahead`, or without a Date."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(404)
            if ahead is not None:
                self.send_header("Date", format_datetime(datetime.now(UTC) + ahead, usegmt=True))
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Log nothing."""

    with serving(folder, Handler) as address:
        yield address


def states(address: str, authority: Path) -> dict[str, str]:
    return {each.check: each.state.value for each in superlink(address, authority)}


@pytest.mark.parametrize(
    ("minutes", "state"), [(0, "good"), (4, "good"), (-4, "good"), (10, "broken"), (-10, "broken")]
)
def test_its_clock_is_compared_with_this_machines(tmp_path: Path, minutes: int, state: str) -> None:
    make_tls(tmp_path, "tests", "127.0.0.1")
    with answering(tmp_path, timedelta(minutes=minutes)) as address:
        found = states(address, tmp_path / "ca.crt")
    assert found == {"superlink": "good", "superlink's clock": state}


def test_a_superlink_without_a_date_is_worth_a_look(tmp_path: Path) -> None:
    make_tls(tmp_path, "tests", "127.0.0.1")
    with answering(tmp_path, None) as address:
        assert states(address, tmp_path / "ca.crt")["superlink's clock"] == "look"


def test_one_of_another_authority_is_broken_and_none_is_worth_a_look(tmp_path: Path) -> None:
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        make_tls(tmp_path / name, "tests", "127.0.0.1")
    with answering(tmp_path / "theirs", timedelta(0)) as address:
        assert states(address, tmp_path / "ours" / "ca.crt") == {"superlink": "broken"}
    assert states(address, tmp_path / "ours" / "ca.crt") == {"superlink": "look"}
    assert states(address, tmp_path / "no.crt") == {"superlink": "look"}

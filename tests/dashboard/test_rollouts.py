"""The page of rollouts: what the gate saw in each group, and what an operator may do."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard import settings
from dashboard.auth import session
from dashboard.auth.users import ROLES, User
from dashboard.data import reading
from fa_core.cli import rollout_acting as commands
from fa_core.errors import Refused
from fa_core.rollout.document import Rollout
from fa_core.rollout.evidence import Judgement
from fa_core.values import Release
from tests.dashboard.rendering import markup, render, words
from tests.rollout import rolling
from tests.rollout.rolling import Rolling, StandIn

GROUP = {
    "group": "en-US", "estimate_low": 0.001, "estimate_high": 0.004, "interval_low": -0.008,
    "interval_high": 0.0123, "information": 1e5, "fraction": 0.25, "z_rollback": -1.2, "boundary_rollback": 3.42,
    "z_ship": -3.1, "boundary_ship": -2.73, "shipped": True, "reason": "significantly less than 2.0 points worse",
}  # fmt: skip
ABSENT = dict.fromkeys(GROUP) | {
    "group": "es-en", "fraction": 0.0, "shipped": False, "reason": "not measured in any look",
}  # fmt: skip
WORSE = GROUP | {"group": "it-en", "interval_low": 0.02, "interval_high": 0.05, "shipped": False}


class Numbers(StandIn):
    """A gate with the numbers of three groups."""

    def looks(self, document: Rollout, releases: Sequence[Release | None]) -> Judgement:
        found = super().looks(document, releases)
        gate = {"groups": [GROUP, ABSENT, WORSE], "overall": GROUP | {"group": "everyone", "shipped": False}}
        return Judgement(found.verdict, gate, found.why)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Rolling]:
    rolling.prepare(tmp_path / "template")
    found = rolling.opened(tmp_path, tmp_path / "template")
    found.judge = Numbers()
    yield found
    found.store.close()


def use(
    fleet: Rolling, monkeypatch: pytest.MonkeyPatch, roles: Sequence[str] = ROLES, **more: object
) -> None:
    settings.use(settings.Settings(str(fleet.folder.parent / "store"), fleet.folder.parent / "files", **more))
    reading.forget()
    monkeypatch.setattr(session, "current_user", lambda: User("tester", frozenset(roles)))


def test_no_rollout_is_said(fleet: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    use(fleet, monkeypatch)
    assert "There is no rollout yet" in words(markup(render("rollouts")))


def test_a_look_shows_every_group_with_its_interval_and_boundary(
    fleet: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.start()
    fleet.week("gate", 0)
    use(fleet, monkeypatch)
    text = words(markup(render("rollouts")))
    for expected in (
        "Look 1 of 4", "0.10 to 0.40", "−0.80 to 1.23", "25%", "−1.20 / 3.42", "−3.10 / −2.73",
        "not measured in any look", "acts on 0% of the devices", "Not measured, and so nothing expands: es-en",
        "it-en: it counts as good enough once the interval ends below 2.00 points; it ends at 5.00 now",
        "ρ 0.0172 of 0.12 planned spent", "set aside for", "Look 2 is due from",
    ):  # fmt: skip
        assert expected in text, expected


def test_a_rollback_ends_it(fleet: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.start()
    fleet.week("gate", -1)
    use(fleet, monkeypatch, operate=lambda *_: "")
    page = render("rollouts")
    text = words(markup(page))
    assert "was rolled back, and the baseline acts everywhere" in text
    assert "Nothing more is planned" in text
    assert not page.button


def test_only_an_operator_acts_and_is_told_what_came_of_it(
    fleet: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.start()
    asked: list[tuple[str, ...]] = []

    def operate(*said: str) -> str:
        asked.append(said)
        if said[2] == "decide":
            raise Refused("the witness is away")
        return "held"

    use(fleet, monkeypatch, ["viewer"], operate=operate)
    assert "needs the operator role" in words(markup(render("rollouts")))
    use(fleet, monkeypatch, ["operator"], operate=operate)
    page = render("rollouts")
    page.button(key="operate-hold").click().run()
    assert "held" in words(markup(page))
    page.button(key="operate-decide").click().run()
    assert "the witness is away" in words(markup(page))
    document = fleet.history().document
    assert [each[1:] for each in asked] == [
        (document.hash.hex(), "hold"), (document.hash.hex(), "decide"),
    ]  # fmt: skip


def test_what_the_log_has_is_shown_and_never_run(fleet: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries of an aggregator that writes markup, and values of other types, into its decisions."""
    bad = "<img src=x onerror=alert(1)>"
    fleet.start()
    look = fleet.week("gate", 0).decision
    assert look is not None
    hostile = {
        "groups": [GROUP | {"group": bad, "reason": bad, "z_ship": bad}, 7, None],
        "overall": {"fraction": "x"},
    }
    wrong = {"groups": "x", "overall": [], "measures": [{"measure": bad, "difference": []}], "evidence": bad}
    made = [
        replace(look, number=2, gate=hostile, why=bad),
        replace(look, number=3, gate=wrong),
        replace(look, action="stage", number=1, gate=wrong),
        replace(look, action="stage", number=400, gate=wrong),
    ]
    for each in made:
        fleet.store.publish("decision", fleet.history().document.hash.hex(), each.entry())
    use(fleet, monkeypatch)
    page = render("rollouts")
    assert not page.exception
    assert bad not in markup(page)
    assert bad in words(markup(page))


def test_the_public_log_does_not_name_who_operated(fleet: Rolling, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.start()
    monkeypatch.setattr(commands, "context", lambda *given: fleet.context)
    use(fleet, monkeypatch, operate=commands.operated)
    render("rollouts").button(key="operate-hold").click().run()
    assert fleet.history().decisions[-1].why == "an operator asked for it in the dashboard"
    assert not any(b"tester" in each for each in fleet.entries())

"""Somebody who leads an adapter with near misses: what the caps let count, and what would be without them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np

from clients.personal.adapter import Windows
from clients.personal.learn import Candidate, learn
from clients.personal.moments import A_SESSION, Moment, countable
from tests.personal.test_core import ANCHORS, OWNER, WANTED, clips

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
TOWARDS = np.roll(OWNER, 48)
"""Where the phrase lies that somebody wants the device to wake for; the anchors have others that are like
it."""
PHRASE = clips(40, -1.5, TOWARDS, 21)
PUBLIC = replace(ANCHORS, near=clips(40, -1.5, TOWARDS / 2, 23))


def owners_month() -> list[Moment]:
    return [
        Moment(NOW - timedelta(days=2 * at + 1), f"own {at}", "follow_up", each)
        for at, each in enumerate(WANTED)
    ]


def evening() -> list[Moment]:
    began = NOW - timedelta(hours=16)
    return [Moment(began + timedelta(minutes=at), "evening", "retry", each) for at, each in enumerate(PHRASE)]


def woken(moments: tuple[Moment, ...]) -> float:
    """Return the share of the phrase, said again, that wakes what is learned from these moments."""
    found = learn([each.windows for each in moments], [], PUBLIC, 0.0)
    assert isinstance(found, Candidate)
    again = clips(50, -1.5, TOWARDS, 22)
    return float(np.mean([(found.step.logits(each) > found.threshold).any() for each in again]))


def test_one_evening_of_a_phrase_teaches_little() -> None:
    counted = countable([*owners_month(), *evening()], NOW)
    assert sum(each.source == "retry" for each in counted) == A_SESSION
    assert woken(counted) < 0.1
    everything = tuple(sorted([*owners_month(), *evening()], key=lambda each: each.at))
    assert woken(everything) > 0.5  # the control: without the caps it does


def test_one_moment_has_at_most_its_share_of_the_step() -> None:
    """However unusual one moment of five is, the others together outweigh it four to one."""
    strange = Windows(np.array([-1.5]), 3 * TOWARDS[None])
    found = learn([*WANTED[:9], strange], [], PUBLIC, 0.0)
    assert isinstance(found, Candidate)
    towards = found.step.direction @ TOWARDS / np.linalg.norm(TOWARDS)
    owner = found.step.direction @ OWNER / np.linalg.norm(OWNER)
    assert towards < owner / 2

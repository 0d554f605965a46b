"""A policy as detectors follow it: what must be asked, and when they wake less easily."""

from datetime import UTC, datetime

from clients.models.policy import NOBODY_INTERACTS, Context, Policy, Required
from clients.runtime.detectors import Detector


class FollowedPolicy:
    """Raises detectors' thresholds in the contexts of a policy. What it keeps from waking is a near miss."""

    def __init__(self, policy: Policy, *detectors: Detector) -> None:
        self._policy = policy
        self._detectors: list[tuple[Detector, float]] = []
        self._interacted: datetime | None = None
        self.follow(*detectors)

    def follow(self, *detectors: Detector) -> None:
        """Apply to these detectors from now on, and give the ones before their own thresholds back."""
        self.end()
        self._detectors = [(each, each.threshold) for each in detectors]

    def interacted(self, at: datetime) -> None:
        """Take in that somebody reacted or gave a command."""
        self._interacted = at

    def apply(self, at: datetime, *, playback: bool) -> None:
        """Set the detectors' thresholds for the samples that come now."""
        context = self._context(at, playback)
        for detector, own in self._detectors:
            detector.threshold = self._policy.threshold(own, context)

    def required(self, intent: str, at: datetime, *, playback: bool) -> Required | None:
        """Return what must happen before an intent is carried out. Whoever asks for a confirmation gives the
        session its answer, the reaction `confirmed` or `denied`."""
        return self._policy.required(intent, self._context(at, playback))

    def end(self) -> None:
        """Give the detectors their own thresholds back."""
        for detector, own in self._detectors:
            detector.threshold = own

    def _context(self, at: datetime, playback: bool) -> Context:
        nobody = self._interacted is None or at - self._interacted >= NOBODY_INTERACTS
        return Context(at.astimezone(UTC).hour, playback, nobody)

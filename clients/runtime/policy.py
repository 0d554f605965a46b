"""A policy as one detector follows it: what must be asked, and when the detector wakes less easily."""

from datetime import UTC, datetime

from clients.models.policy import NOBODY_INTERACTS, Context, Policy, Required
from clients.runtime.detectors import Detector


class FollowedPolicy:
    """Raises a detector's threshold in the contexts of a policy. What it keeps from waking is a near miss."""

    def __init__(self, policy: Policy, detector: Detector) -> None:
        self._policy = policy
        self._detector = detector
        self._threshold = detector.threshold
        self._interacted: datetime | None = None

    def interacted(self, at: datetime) -> None:
        """Take in that somebody reacted or gave a command."""
        self._interacted = at

    def apply(self, at: datetime, *, playback: bool) -> None:
        """Set the detector's threshold for the samples that come now."""
        self._detector.threshold = self._policy.threshold(self._threshold, self._context(at, playback))

    def required(self, intent: str, at: datetime, *, playback: bool) -> Required | None:
        """Return what must happen before an intent is carried out. Whoever asks for a confirmation gives the
        session its answer, the reaction `confirmed` or `denied`."""
        return self._policy.required(intent, self._context(at, playback))

    def end(self) -> None:
        """Give the detector its own threshold back."""
        self._detector.threshold = self._threshold

    def _context(self, at: datetime, playback: bool) -> Context:
        nobody = self._interacted is None or at - self._interacted >= NOBODY_INTERACTS
        return Context(at.astimezone(UTC).hour, playback, nobody)

"""From a controlled test set to an anchor set: the windows of its near misses and of people's speech.

Of each clip, or of ten seconds of a programme, the window is kept at which the head's score is highest. A
test set that anchors were made from says nothing of adapters learned with them: measure those on another.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from clients.models import head as heads
from clients.models.head import Head
from clients.personal.adapter import Windows, windows_of
from clients.personal.anchors import Anchors
from clients.runtime.detectors import EMBEDDING_HOP, SAMPLE_RATE, EmbeddingStream
from clients.testset.clips import Clip, ControlledSet
from fa_core.errors import BadInput

STRETCH_S: Final = 10
"""Seconds of a programme that one window is kept of."""


def anchors_of(
    tested: ControlledSet, head: Head, clips: int, progress: Callable[[int, int], None]
) -> Anchors:
    """Return the anchor set of a test set for a head: at most so many clips of each kind, evenly chosen.

    Raises BadInput where the set is for another wake word, a recording was changed, or nobody speaks in it.
    """
    if tested.recipe.wake_word != head.wake_word:
        raise BadInput(
            f"the test set is for {tested.recipe.wake_word}, the model listens for {head.wake_word}"
        )
    people = {each.name for each in tested.recipe.programmes if each.human is not None}
    near = [each for each in tested.clips if each.kind == "near_miss"]
    human = [each for each in tested.clips if each.kind == "programme" and each.text in people]
    for kind, found in (("near misses", near), ("people's speech", human)):
        if not found:
            raise BadInput(
                f"{tested.folder}: there are no {kind} in this test set, and an anchor set needs them"
            )
    total = len(near) + len(human)
    said = [
        each for at, clip in enumerate(near) for each in _kept(tested, head, clip, progress, at + 1, total)
    ]
    heard = [
        each
        for at, clip in enumerate(human, len(near))
        for each in _kept(tested, head, clip, progress, at + 1, total)
    ]
    return Anchors(
        _evenly(heard, clips),
        _evenly(said, clips),
        float(min(clips, len(heard)) * STRETCH_S),
        head.wake_word,
        sha256(heads.encode(head)).hexdigest(),
    )


def provenance(tested: ControlledSet) -> str:
    """Return what an anchor set of this test set is made from, as a manifest says it."""
    return (
        f"test set {tested.recipe.metadata.name} {tested.hash[:16]}, seed {tested.recipe.seed}: "
        "near misses by espeak-ng, speech of asterisk-core-sounds-en-g722 (CC BY-SA 3.0)"
    )


def _kept(
    tested: ControlledSet, head: Head, clip: Clip, progress: Callable[[int, int], None], done: int, total: int
) -> Iterator[Windows]:
    windows = windows_of(head, EmbeddingStream().feed(tested.samples(clip)))
    step = STRETCH_S * SAMPLE_RATE // EMBEDDING_HOP
    for start in range(0, len(windows.base), step):
        part = slice(start, start + step)
        yield Windows(windows.base[part], windows.features[part]).peak(0)
    progress(done, total)


def _evenly(found: Sequence[Windows], most: int) -> tuple[Windows, ...]:
    """Return at most so many, from the whole length."""
    count = min(most, len(found))
    return tuple(found[at * len(found) // count] for at in range(count))

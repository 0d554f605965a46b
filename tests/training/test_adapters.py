"""Adapters of every group in one file, of which a device chooses its own."""

from dataclasses import replace

import numpy as np
import pytest

from clients.models.adapters import MAGIC, Adapters, decode, encode
from clients.models.formats import EMBEDDING_RUNTIME, content
from clients.models.head import EMBEDDING_SIZE
from fa_core.errors import BadInput
from fa_core.publication.artefact import ArtefactManifest
from tests.training.toy import base_head

RANDOM = np.random.default_rng(0)
FOUND = Adapters(
    wake_word="okay_nabu",
    model_version="toy-1",
    fact="accent",
    groups=("here", "there", "other"),
    shape=RANDOM.standard_normal(4).astype(np.float32),
    directions=RANDOM.standard_normal((3, EMBEDDING_SIZE)).astype(np.float32),
    biases=RANDOM.standard_normal(3),
    thresholds=np.array([0.2, 0.4, 0.6]),
)


def test_they_are_the_same_after_their_bytes() -> None:
    found = decode(encode(FOUND))
    assert encode(found) == encode(FOUND)
    assert (found.groups, found.fact, found.model_version) == (FOUND.groups, "accent", "toy-1")
    assert np.array_equal(found.directions, FOUND.directions)
    assert found.thresholds.tolist() == FOUND.thresholds.tolist()


@pytest.mark.parametrize(("value", "at"), [("there", 1), ("elsewhere", 2), (None, 2)])
def test_a_device_chooses_its_own_and_the_last_where_it_has_none(value: str | None, at: int) -> None:
    head, own = base_head(), FOUND.chosen(value)
    adapted = head.adapted(own)
    assert adapted.threshold == FOUND.thresholds[at]
    assert adapted.bias == head.bias + FOUND.biases[at]
    expected = head.weights + np.outer(FOUND.shape, FOUND.directions[at])
    assert np.allclose(adapted.weights, expected, atol=1e-6)


def test_an_artefact_of_them_is_in_its_form() -> None:
    data = encode(FOUND)
    manifest = ArtefactManifest(
        "adapter", "toy-1", "toy-1", "okay_nabu", EMBEDDING_RUNTIME, "0" * 64, "1" * 64, len(data), "MIT", "x"
    )
    assert isinstance(content(manifest, data), Adapters)
    with pytest.raises(BadInput, match="its manifest of"):
        content(replace(manifest, version="toy-2"), data)
    with pytest.raises(BadInput, match="these bytes are no anchor set"):
        content(replace(manifest, kind="anchors"), data)


def test_bytes_that_are_no_adapters_are_refused() -> None:
    data = encode(FOUND)
    cut = [data[:at] for at in range(0, len(data), 37)]
    for wrong in (
        *cut,
        data + b"\0",
        data.replace(b'"there"', b'"here"'),
        MAGIC,
        b"",
        data.replace(b"accent", b"secret"),
    ):
        with pytest.raises(BadInput):
            decode(wrong)
    broken = FOUND.biases.copy()
    broken[0] = np.inf
    for changes in (
        {"groups": ("here", "there", "last")},
        {"thresholds": np.array([0.0, 0.5, 0.5])},
        {"biases": broken},
        {"fact": "secret"},
        {"directions": FOUND.directions[:2]},
    ):
        with pytest.raises(BadInput):
            encode(replace(FOUND, **changes))

"""The closed forms of artefacts: read back as they were written, and nothing else is read."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.models import head, policy, thresholds
from clients.models.formats import content, published_form
from clients.models.head import Head
from clients.models.policy import Context
from fa_core.errors import BadInput
from tests.models.samples import manifest_of, random_head

HEAD = random_head()
EVENING = Context(hour=20, playback=True, nobody_interacts=True)


@pytest.mark.parametrize("form", ["head", "adapter"])
def test_a_head_is_read_back(form: head.Form) -> None:
    data = head.encode(HEAD, form)
    read = head.decode(data, form)
    np.testing.assert_array_equal(read.weights, HEAD.weights)
    assert (read.wake_word, read.model_version, read.threshold, read.bias) == (
        "okay_nabu",
        "test-1",
        0.5,
        -1.0,
    )
    assert head.encode(read, form) == data
    with pytest.raises(BadInput):
        head.decode(data, "adapter" if form == "head" else "head")


def test_eight_bits_are_a_quarter_of_the_size_and_near_the_head() -> None:
    data = head.encode(HEAD, encoding="int8")
    read = head.decode(data)
    assert len(data) < 0.35 * len(head.encode(HEAD))
    step = np.abs(HEAD.weights).max(axis=1, keepdims=True) / 127
    assert (np.abs(read.weights - HEAD.weights) <= 0.5001 * step).all()
    largest = np.abs(HEAD.weights).argmax(axis=1)[:, None]
    np.testing.assert_allclose(
        np.take_along_axis(read.weights, largest, 1), np.take_along_axis(HEAD.weights, largest, 1), rtol=1e-6
    )


def test_a_frame_of_zeros_stays_zero() -> None:
    weights = np.zeros((2, 96), np.float32)
    weights[0, 3] = 2.0
    read = head.decode(head.encode(Head("w", "v", 0.5, weights, 0.0), encoding="int8"))
    np.testing.assert_array_equal(read.weights, weights)


def test_the_loss_counts_differences_and_decisions() -> None:
    one = np.ones((1, 96), np.float32)
    clips = [(one, True), (-one, True), (one, False), (-one, False)]
    strong = Head("w", "v", 0.5, one / 96, 0.0)
    weak = Head("w", "v", 0.5, one / 96, -1.5)
    found = head.loss(strong, weak, clips)
    assert (found.wake, found.other) == (2, 2)
    assert (found.missed, found.missed_after, found.false, found.false_after) == (1, 2, 1, 0)
    high, low = (1 / (1 + np.exp(-1)) - 1 / (1 + np.exp(0.5))), (1 / (1 + np.exp(1)) - 1 / (1 + np.exp(2.5)))
    assert found.largest == pytest.approx(max(high, low))
    assert found.mean == pytest.approx((high + low) / 2)
    with pytest.raises(BadInput, match="no clip"):
        head.loss(strong, weak, [])


@given(st.integers(0, 400), st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_changed_description_is_refused_or_another_head(place: int, flip: int) -> None:
    data = bytearray(head.encode(HEAD))
    place %= data.index(b"}")
    data[place] ^= flip
    try:
        read = head.decode(bytes(data))
    except BadInput:
        return
    assert (read.wake_word, read.model_version) != (HEAD.wake_word, HEAD.model_version)


@pytest.mark.parametrize("cut", [0, 5, 40, -1])
def test_a_head_that_was_cut_off_is_refused(cut: int) -> None:
    for bad in (
        head.encode(HEAD)[:cut],
        head.encode(HEAD, encoding="int8")[:cut],
        head.encode(HEAD) + b"0000",
    ):
        with pytest.raises(BadInput):
            head.decode(bad)


@pytest.mark.parametrize(
    "bad",
    [
        Head("", "v", 0.5, HEAD.weights, 0.0),
        Head("w", "v", 1.0, HEAD.weights, 0.0),
        Head("w", "v", float("nan"), HEAD.weights, 0.0),
        Head("w", "v", 0.5, HEAD.weights, float("inf")),
        Head("w", "v", 0.5, HEAD.weights[:, :95], 0.0),
        Head("w", "v", 0.5, np.full((2, 96), np.nan, np.float32), 0.0),
        Head("w", "v", 0.5, np.zeros((65, 96), np.float32), 0.0),
    ],
)
def test_a_head_that_cannot_be_is_not_written(bad: Head) -> None:
    with pytest.raises(BadInput):
        head.encode(bad)


class Evil:
    """An object whose reading runs code: it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def test_a_pickle_inside_an_npz_is_refused_and_never_run(tmp_path: Path) -> None:
    arrays = {"wake_word": np.array("w"), "model_version": np.array("v"), "threshold": np.array(0.5)}
    weights, file, mark = np.array([Evil(tmp_path / "ran")], object), tmp_path / "head.npz", tmp_path / "ran"
    np.savez_compressed(file, **arrays, weights=weights, bias=np.array(0.0))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="is no head"):
        Head.load(file)
    with pytest.raises(BadInput, match="is no head"):
        published_form("head", file, "v")
    for raw in (file.read_bytes(), pickle.dumps(Evil(mark))):
        with pytest.raises(BadInput):
            content(manifest_of(raw), raw)
    assert not mark.exists()
    with np.load(file, allow_pickle=True) as control:  # the broken control: where objects are read, it runs
        control["weights"]
    assert mark.exists()


def test_a_file_is_published_in_the_form_that_devices_read(tmp_path: Path) -> None:
    HEAD.save(tmp_path / "head.npz")
    data = published_form("head", tmp_path / "head.npz", "v")
    assert data == head.encode(HEAD)
    assert content(manifest_of(data), data).model_version == "test-1"  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="its manifest of okay_nabu test-2"):
        content(manifest_of(data, version="test-2"), data)
    (tmp_path / "t").write_text('{ "thresholds": {"okay_nabu": "0.9"} }')
    assert published_form("thresholds", tmp_path / "t", "t-1") == (
        b'{"thresholds":{"okay_nabu":"0.9"},"version":"t-1"}'
    )
    (tmp_path / "p").write_text('{"rules": [{"action": "confirm", "intents": []}]}')
    assert published_form("policy", tmp_path / "p", "v") == b'{"rules":[{"action":"confirm"}]}'
    assert published_form("anchors", tmp_path / "p", "v") == (tmp_path / "p").read_bytes()


def test_thresholds_are_read_back() -> None:
    data = thresholds.encode("test-1", {"okay_nabu": "0.935", "alexa": "0.5"})
    assert thresholds.decode(data).by_wake_word == {"okay_nabu": 0.935, "alexa": 0.5}
    with pytest.raises(BadInput, match="no threshold for hey_jarvis"):
        content(manifest_of(data, kind="thresholds", wake_word="hey_jarvis"), data)


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"{}",
        b"[]",
        b'{"thresholds":{"a":"0.5"}}',
        b'{"thresholds":{},"version":"v"}',
        b'{"thresholds":{"a":0.5},"version":"v"}',
        b'{"thresholds":{"a":"0.0"},"version":"v"}',
        b'{"thresholds":{"a":"1.0"},"version":"v"}',
        b'{"thresholds":{"a":"0.1234567"},"version":"v"}',
        b'{"thresholds":{"a":"5e-1"},"version":"v"}',
        b'{"thresholds": {"a":"0.5"},"version":"v"}',
        b'{"thresholds":{"a":"0.5"},"version":""}',
        b'{"more":1,"thresholds":{"a":"0.5"},"version":"v"}',
        b"[" * 100_000,
    ],
)
def test_other_bytes_are_no_thresholds(bad: bytes) -> None:
    with pytest.raises(BadInput, match="no thresholds"):
        thresholds.decode(bad)


def policy_of(*rules: str) -> policy.Policy:
    return policy.parse(f'{{"rules": [{", ".join(rules)}]}}'.encode())


def test_a_policy_says_what_is_required_for_an_intent() -> None:
    found = policy_of(
        '{"action": "confirm", "intents": ["HassTurnOff"], "contexts": ["playback"]}',
        '{"action": "unlock", "intents": ["HassUnlock"]}',
        '{"action": "confirm", "hours": [22, 6]}',
    )
    assert found.required("HassTurnOff", EVENING) == "confirm"
    assert found.required("HassTurnOff", Context(20, False, True)) is None
    assert found.required("HassUnlock", Context(23, True, True)) == "unlock"
    assert [found.required("x", Context(hour, False, False)) for hour in (5, 6, 21, 22)] == [
        "confirm", None, None, "confirm",
    ]  # fmt: skip
    assert policy.decode(policy.encode(found)) == found


def test_a_tighter_threshold_never_loosens() -> None:
    found = policy_of(
        '{"action": "tighter_threshold", "threshold": "0.97", "contexts": ["nobody_interacts"], '
        '"hours": [20, 22]}',
        '{"action": "tighter_threshold", "threshold": "0.3"}',
    )
    assert found.threshold(0.9, EVENING) == 0.97
    for other in (Context(22, True, True), Context(20, True, False)):
        assert found.threshold(0.9, other) == 0.9
    assert found.threshold(0.99, EVENING) == 0.99


@pytest.mark.parametrize(
    "rule",
    [
        '{"action": "delete"}',
        '{"action": "confirm", "threshold": "0.9"}',
        '{"action": "tighter_threshold"}',
        '{"action": "tighter_threshold", "threshold": "0.9", "intents": ["a"]}',
        '{"action": "tighter_threshold", "threshold": "1.5"}',
        '{"action": "confirm", "contexts": ["full_moon"]}',
        '{"action": "confirm", "hours": [4, 4]}',
        '{"action": "confirm", "hours": [4, 25]}',
        '{"action": "confirm", "script": "rm"}',
    ],
)
def test_a_policy_is_a_closed_form(rule: str) -> None:
    with pytest.raises(BadInput, match="no policy"):
        policy_of(rule)


def test_a_policy_has_one_form() -> None:
    for loose in (
        b'{"rules": [{"action":"confirm"}]}',
        b'{"rules":[{"action":"confirm","intents":[]}]}',
        b"{}",
    ):
        with pytest.raises(BadInput):
            policy.decode(loose)

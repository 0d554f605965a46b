"""One rule for a label, at every border."""

import pytest

from fa_core.labels import hidden, lookalikes, normal, wrong

PERSIAN = "می\u200cخواهم"
HINDI = "क्\u200dष"


@pytest.mark.parametrize("label", ["en-GB", PERSIAN, HINDI, "Zürich", "a b", "👍", "x" * 64])
def test_what_people_write_is_a_label(label: str) -> None:
    assert wrong(label) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is empty"),
        (" \u00a0", "is empty"),
        ("a\x00b", "holds the control or invisible character U+0000"),
        ("a\nb", "U+000A"),
        ("a\u202eb", "U+202E"),
        ("\u200fab", "U+200F"),
        ("\ufeffab", "U+FEFF"),
        ("a\u3164b", "U+3164"),
        ("a\ud800", "U+D800"),
        ("\u200cab", "U+200C"),
        ("a\u200c", "U+200C"),
        ("a\u200c\u200cb", "U+200C"),
        ("1\u200d2", "U+200D"),
        (" abc", "begins or ends with a space"),
        ("abc\u00a0", "begins or ends with a space"),
        ("x" * 65, "has 65 characters; write at most 64"),
        ("cafe\u0301", "is not in Unicode's composed form"),
    ],
)
def test_what_is_wrong_is_said_without_the_text(text: str, what: str) -> None:
    found = wrong(text)
    assert found is not None
    assert what in found
    assert not text or text not in found


def test_the_place_of_a_hidden_character_is_the_first() -> None:
    assert hidden(f"{PERSIAN}\u202e\x00") == len(PERSIAN)
    assert hidden(PERSIAN) is None


def test_the_normal_form_of_a_label_is_composed_and_trimmed() -> None:
    assert normal(" cafe\u0301\u00a0") == "café"
    assert wrong(normal(" cafe\u0301\u00a0")) is None


def test_labels_that_a_person_cannot_keep_apart_are_pairs() -> None:
    assert lookalikes(["a b", "a\u00a0b", "A  B", "ab", "a b"]) == [("a b", "a\u00a0b"), ("a b", "A  B")]
    assert lookalikes(["straße", "STRASSE"]) == [("straße", "STRASSE")]
    assert lookalikes(["en-US", "en-GB"]) == []

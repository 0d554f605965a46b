"""What a label is, at every border: tables that are imported, a device's settings and facts, and plans.

A label is text in Unicode's composed form (NFC), without spaces around it, of 1 to 64 characters that can all
be seen. Joiners (U+200C, U+200D) are spelling in Persian and in Indic scripts, and may stand between letters.
Two labels that a person cannot keep apart, since only case, width or the kind of a space differs, may not be
used side by side.
"""

import unicodedata
from collections.abc import Iterable
from typing import Final

LONGEST: Final = 64
"""Characters of the longest label."""

JOINERS: Final = "\u200c\u200d"
_HIDDEN: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_BLANK: Final = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Letters, marks and symbols that show nothing."""


def normal(text: str) -> str:
    """Return text in the form in which labels are compared: NFC, without spaces around it.

    >>> normal(" cafe\u0301 ") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", text).strip()


def hidden(text: str) -> int | None:
    """Return the place of the first character that cannot be seen, or that a terminal would obey.

    A joiner between two letters (or marks) is none. None where every character can be seen.

    >>> hidden("می\u200cخواهم"), hidden("a\u202eb"), hidden("a\u200c")
    (None, 1, 1)
    """
    for place, character in enumerate(text):
        if unicodedata.category(character) not in _HIDDEN and character not in _BLANK:
            continue
        between = _is_letter(text[place - 1 : place]) and _is_letter(text[place + 1 : place + 2])
        if character not in JOINERS or not between:
            return place
    return None


def _is_letter(text: str) -> bool:
    return bool(text) and unicodedata.category(text)[0] in "LM"


def wrong(text: str, longest: float = LONGEST) -> str | None:
    """Return what is wrong with a label, and after a semicolon what would be right; None where nothing is.

    The answer never repeats the text.
    """
    if not text.strip():
        return "is empty; write something"
    if (place := hidden(text)) is not None:
        return f"holds the control or invisible character U+{ord(text[place]):04X}; take it out"
    if text != text.strip():
        return "begins or ends with a space; take it out"
    if len(text) > longest:
        return f"has {len(text)} characters; write at most {longest}"
    return None if text == normal(text) else "is not in Unicode's composed form (NFC); write it anew"


def lookalikes(labels: Iterable[str]) -> list[tuple[str, str]]:
    """Return (earlier, label) for each label that looks like an earlier one: but for case, width or spaces.

    >>> lookalikes(["en-US", "en-us", "fr"])
    [('en-US', 'en-us')]
    """
    first: dict[str, str] = {}
    pairs = []
    for label in labels:
        earlier = first.setdefault(_looks(label), label)
        if earlier != label:
            pairs.append((earlier, label))
    return pairs


def _looks(label: str) -> str:
    """Return what two labels that look alike have in common."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold()).split())

"""The order of a model's versions, for the floor of a rollout."""

import re

_NUMBERED = re.compile(r"(.*?)([0-9]+(?:\.[0-9]+)*)", re.DOTALL)


def older(version: str, than: str) -> bool:
    """Return whether a version is older than another: the same name, and numbers at its end that are less.

    Versions with other names have no order, nor have those without a number: neither is older.

    >>> older("okay-nabu-2.9", "okay-nabu-2.10"), older("okay-nabu-2.1", "okay-nabu-2"), older("a-1", "b-2")
    (True, False, False)
    """
    one, other = _NUMBERED.fullmatch(version), _NUMBERED.fullmatch(than)
    if one is None or other is None or one[1] != other[1]:
        return False
    return _numbers(one[2]) < _numbers(other[2])


def _numbers(text: str) -> tuple[tuple[int, str], ...]:
    """Return numbers that compare as whole ones of any length: digits without zeros in front."""
    numbers = [part.lstrip("0") for part in text.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple((len(part), part) for part in numbers)

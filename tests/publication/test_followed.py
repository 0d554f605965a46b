"""A publication stays small enough to be read however long the log grows, and devices can still follow it."""

from pathlib import Path

import pytest

from fa_core.errors import BadInput
from fa_core.publication import directory
from fa_core.publication.proofs import LoggedEntry, Publication
from fa_core.store.translog import COVERING, NEWEST, followed

EARLIER = range(1_000, 2_000_000, 100)
"""Some 20,000 checkpoints: 48 a day for more than a year."""

PUBLISHED = range(0, 1_900_000, 50_000)


def test_who_was_away_for_a_month_and_who_holds_a_file_of_long_ago_can_follow() -> None:
    found = followed(EARLIER, PUBLISHED, {5_500, 7})
    assert set(EARLIER[-30 * 48 :]) <= set(found), "every checkpoint of a month"
    for index in PUBLISHED:
        assert next(size for size in EARLIER if size > index) in found, "where it was published first"
    assert 5_500 in found, "the file that is replaced"
    assert list(found) == sorted(found)
    assert set(found) <= set(EARLIER)
    assert NEWEST < len(found) <= NEWEST + len(PUBLISHED) + 1


def test_a_short_log_is_proved_from_every_checkpoint() -> None:
    assert followed([2, 5, 9], [3, 20], ()) == (2, 5, 9)
    assert followed([], [3], {4}) == ()


def test_the_largest_publication_is_read_and_a_larger_one_is_not_written(tmp_path: Path) -> None:
    most = followed(EARLIER, EARLIER, ())
    assert len(most) == NEWEST + COVERING
    proof, name = (bytes(32),) * 27, directory.model_name("00" * 32)
    entries = tuple(LoggedEntry(at, b"x" * 20_000, proof) for at in range(2))
    data = Publication(b"note", {10**8 + size: proof for size in most}, entries).encode()
    assert len(data) <= directory.most_bytes(name)
    directory.write(tmp_path, name, data)
    assert directory.read(tmp_path, name) == data
    every = Publication(b"note", {10**8 + size: proof for size in EARLIER[:4_600]}, entries).encode()
    with pytest.raises(BadInput, match="devices read at most"):
        directory.write(tmp_path, name, every)
    assert directory.read(tmp_path, name) == data

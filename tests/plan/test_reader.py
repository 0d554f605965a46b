"""Whatever bytes come, they are a plan or a sentence with a place, quickly."""

import time
from pathlib import Path

import pytest

from fa_core.errors import BadInput
from fa_core.plan import BadPlan, load
from fa_core.plan.reader import MAX_DEPTH, MAX_NODES
from fa_core.plan.tree import MAX_BYTES
from tests.plan.samples import GOOD, TODAY, broken, complaints, good

BILLION_LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    "data,complaint",
    [
        (b"", "1:1: this file is empty; a plan begins with `apiVersion: fa/v1`"),
        (b"  \n\n", "1:1: this file is empty"),
        (b"# only a comment\n", "1:1: this file is empty"),
        (b"\x7fELF\x02\x01\x01\x00", "1:1: character U+007F is a control or an invisible mark"),
        (b"a: 1\nb: \xe9t\xe9\n", "2:4: byte 0xe9 is not UTF-8 text; a plan is YAML text, saved as UTF-8"),
        ("name: x\n".encode("utf-16"), "1:1: byte 0xff is not UTF-8 text"),
        (b"a: 1\nb: x\x00y\n", "2:5: character U+0000 is a control"),
        ("a: 1 # \u202egnp.exe\n".encode(), "1:8: character U+202E is a control or an invisible mark"),
        (b"a:\n\tb: 1\n", "2:1: a tab stands where only spaces may; indent with spaces"),
        (b"a: 1\n b: 2\n", "2:3: this is not YAML: mapping values are not allowed here"),
        (b"a: [1, 2\n", "this is not YAML"),
        (b'a: "x\n', "close the quotes"),
        (b"a: b: c\n", "put a text that contains `: ` in quotes"),
        (b"a: @x\n", "put this value in quotes"),
        (b"a: 1\nb\n", "2:1: this is not YAML"),
        (BILLION_LAUGHS.encode(), "1:4: an anchor `&a`; write the value out where it is used"),
        (b"a: *b\n", "1:4: an alias `*b`; write the value out"),
        (b"a: {<<: {b: 1}}\n", "1:5: a merge key `<<`; write the keys out"),
        (b"a: !!str 5\n", "1:4: a tag"),
        (b"a: !!python/object/apply:os.system [ls]\n", "1:4: a tag"),
        (b"%YAML 1.1\n---\na: 1\n", "a `%` directive"),
        (b"a: 1\n---\nb: 2\n", "2:1: a second document starts here; keep one plan in one file"),
        (b"? [a]\n: b\n", "1:3: a key that is itself a list or a mapping; a key is a name"),
        (b"a: 1\na: 2\n", "2:1: `a` is written twice (first at line 1); keep one of them"),
        (b"a: " + b"x" * 2001, "1:4: a text of 2,001 characters"),
        (b'a: "\\ud800"\n', "1:4: `\\ud800` contains"),
        (b'a: "\\U00110000"\n', ""),
        (b"x" * (MAX_BYTES + 1), "1:1: this file has 1,000,001 bytes; a plan has at most 1,000,000"),
    ],
)
def test_what_is_no_plan_is_reported_in_a_sentence(data: bytes, complaint: str) -> None:
    found = complaints(data)
    assert any(complaint in line for line in found), found


@pytest.mark.parametrize(
    "data,complaint",
    [
        (b"[" * 200_000, f"nested more than {MAX_DEPTH} deep"),
        (b"{a: " * 100_000, f"nested more than {MAX_DEPTH} deep"),
        (b"- " * 100_000, f"nested more than {MAX_DEPTH} deep"),
        (b"? " * 100_000, f"nested more than {MAX_DEPTH} deep"),
        (b"[" + b"1," * 400_000 + b"]", f"more than {MAX_NODES:,} values"),
        (b"a: [" + b"[]," * 300_000 + b"]", f"more than {MAX_NODES:,} values"),
        (b'"' + b"x" * 900_000, "this is not YAML"),
        (b"a: " + b"x " * 100_000, "a text of"),
        (b"a" * 900_000 + b": 1", "a text of"),
        (b"\n" * 300_000, "this file is empty"),
        (b"# \n" * 100_000, "this file is empty"),
        (b"a: |\n" + b"  x\n" * 50_000, "a text of"),
    ],
)
def test_a_large_or_deep_file_is_refused_in_seconds(data: bytes, complaint: str) -> None:
    started = time.process_time()
    found = complaints(data)
    assert any(complaint in line for line in found), found
    assert time.process_time() - started < 20, "CPU seconds; a tenth of it on an idle machine"


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(100 * 1024**3)
    with pytest.raises(BadPlan, match="this file has 107,374,182,400 bytes; a plan has at most 1,000,000"):
        load(path, today=TODAY)


def test_a_path_that_is_no_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match="this is a directory"):
        load(tmp_path)
    with pytest.raises(BadInput, match="there is no such file"):
        load("/dev/zero")


def test_a_file_is_named_in_its_complaints(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(broken("window: 7d", "window: soon"))
    with pytest.raises(BadPlan) as caught:
        load(path, today=TODAY)
    assert str(caught.value).startswith(f"{path}:11:9: `soon` is text")
    path.write_text(GOOD)
    assert load(path, today=TODAY).hash == good().hash


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    windows = "\ufeff" + GOOD.replace("\n", "\r\n")
    assert good(windows).hash == good().hash
    assert complaints(broken("window: 7d", "window: x", windows))[0].startswith("11:9:")


def test_columns_count_characters_not_bytes() -> None:
    (line,) = complaints(broken("{wake_word: okay_nabu", '{wake_word: "öka", snr_db: loud'))
    assert line.startswith("12:35: `snr_db` is a number")


def test_a_terminal_is_never_given_a_control_character() -> None:
    for line in complaints(broken("owner: wake-word-quality", r'"\e[31mred": "\e]0;title\a"')):
        assert line.isprintable(), line

"""The bench of Prio3 in a tiny form."""

import json

from scripts.bench import prio
from tests.bench.running import run


def test_prio() -> None:
    _, printed = run(prio, "--numbers", "3", "--reports", "3", "--batch", "2", "--json")
    rows = json.loads(printed)
    assert [row["circuit"] for row in rows] == ["wake-word-weekly", "r^j", "u v^j", "reference"]
    assert rows[1]["upload"] == rows[2]["upload"] == rows[3]["upload"]
    _, table = run(prio, "--numbers", "2", "--reports", "1")
    assert "2 numbers of 5 bits" in table
    assert "u v^j" in table

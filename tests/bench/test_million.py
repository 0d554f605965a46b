"""The bench of a collection in a tiny form: everything is counted; what it costs depends on the machine."""

from scripts.bench import million
from tests.bench.running import run


def test_million() -> None:
    """Without the four stages, whose bench has a test of its own."""
    _, printed = run(million, "--devices", "2000", "--uploads", "40", "--four-stages", "0")
    rows = [line.split("  ")[1] for line in printed.splitlines() if line.startswith("  ")]
    devices = ["device: makes its report", "device: uploads, new connection", "front: HTTPS, new connection"]
    assert [row for row in rows if ":" in row] == [*devices, "leader: takes", "leader: verifies"]
    assert "2,000 reports, workers of leader and of helper: 1 and 1" in printed
    assert "aggregators' side: " in printed


def test_the_bound_is_of_everything_but_the_device() -> None:
    sent = million.Transport(10, 1.0, 0.2, 3.0, 0.4)
    one = million.Collected(1, 10, 0.5, 0.4, 0.8, 0.3, 100.0, 200.0, 150.0)
    found = million.Figures(0.1, 5.0, "SQLite", sent, [one], million.FourStages(10, 16.0, 3.6, 2.4, 1.2))
    text = million.table(found)
    assert "aggregators' side: 2.40 ms a report, 2.20 on connections that stay; at most 3" in text
    assert "MISSED" not in text
    assert "2.0 times" in text
    assert "all but the device 3.0 times the aggregators' side" in text
    slow = million.Figures(
        0.1, 5.0, "SQLite", sent, [one, million.Collected(2, 10, 0.5, 1.1, 0.8, 0.3, 9, 9, 9)], None
    )
    assert "3.10 ms a report, 2.90 on connections that stay; at most 3: MISSED" in million.table(slow)

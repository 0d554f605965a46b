"""The deployed path as an operator and an analyst walk it: real processes, TLS, hubs of encrypted stores."""

import json
import stat
from pathlib import Path

from tests.deployment.lab import lab


def test_three_hubs_release_over_a_real_federation(tmp_path: Path) -> None:
    with lab(tmp_path) as up:
        status = up.status()
        assert status["ready"]
        assert status["nodes"] == {"node-00": "online", "node-01": "online", "node-02": "online"}
        done = up.run(up.plan("smoke"))
        released = json.loads(done.stdout)
        assert released["devices"] == {"invited": 60, "joined": 60, "dropped": 0, "counted": 60}
        assert (released["engine"], released["simulated"]) == ("lab", True)
        assert released["privacy"]["secure_aggregation"] is True
        assert [line.partition(":")[0] for line in done.stderr.splitlines()[1:]] == [
            "devices join",
            "keys are shared",
            "shares are checked",
            "devices count and mask",
            "the sum is unmasked",
        ]
        with up.store() as store:
            assert store.find("latest").id == released["release"]
            assert store.verify_log() == store.verify_ledger() == []
            assert store.failures() == ()
    private = [file for file in up.folder.rglob("*") if file.suffix in (".key", ".secret", ".db")]
    assert len(private) > 70
    assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in private} == {0}

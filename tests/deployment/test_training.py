"""A training plan on a federation of hubs and a gateway: devices with the default budget and policy answer it
once, with their owners' consent, and what comes of it is in the federation's registry."""

import json
from pathlib import Path

import numpy as np
import pytest

from clients.models.adapters import Adapters
from clients.models.formats import content
from fa_core.errors import Refused
from fa_core.federation.directory import open_federation
from fa_core.rollout import models
from tests.deployment.lab import fa, lab
from tests.deployment.remote import connected
from tests.training import toy

pytestmark = pytest.mark.long
NODES, DEVICES, REMOTE = 2, 58, 4
ONE_GROUP = "segments: {accent: {device: accent, values: [here]}}"


def test_a_candidate_comes_of_hubs_and_a_gateway(tmp_path: Path) -> None:
    every, random = NODES * DEVICES + REMOTE, np.random.default_rng(0)
    sha256, plan = toy.base_sha256(), tmp_path / "toy.yaml"
    plan.write_text(toy.text_of(sha256=sha256, segments=ONE_GROUP))
    moments = [toy.vectors("here", 2, random) for _ in range(every)]
    shown = toy.plan_of(sha256=sha256)
    near = toy.write_fleet(tmp_path / "near", ["here"] * (every - REMOTE), moments[REMOTE:], shown)
    far = toy.write_fleet(tmp_path / "far", ["here"] * REMOTE, moments[:REMOTE], shown)
    toy.base_head().save(tmp_path / "base.npz")
    toy.speech().save(tmp_path / "public.npz")
    with (
        lab(tmp_path, NODES, DEVICES, fleet=near) as up,
        connected(up, tmp_path, far, REMOTE, ample=False) as (_, hub),
    ):
        store, public = open_federation(up.folder).store, ("--public", str(tmp_path / "public.npz"))
        signer = ("--key", str(up.folder / "review" / "plan.key"), "--store", store)
        about = ("--version", "base-1", "--wake-word", "okay_nabu", "--licence", "MIT", "--trained-by", "us")
        fa("model", "add", str(tmp_path / "base.npz"), *about, *signer)
        asked = ("train", "run", str(plan), *public, "--engine", str(up.folder), "--json")
        said = json.loads(fa(*asked).stdout)
        with up.store() as kept:
            release = kept.release(said["release"])
            assert (release.participation.counted, release.secure_aggregation) == (every, True)
            assert [each.cost for each in kept.charges("toys")] == [release.layout.cost]
            found = models.find(kept, said["candidate"])
            assert isinstance(content(found.manifest, kept.artefact(found.manifest.sha256)), Adapters)
            assert f"release {release.id}" in found.manifest.trained_by
            assert f"{every} devices" in found.manifest.trained_by
            assert kept.verify_log() == kept.verify_ledger() == []
        (slot, *_) = sorted(each for each in hub.iterdir() if each.is_dir())
        receipts = fa("device", "receipts", "--dir", str(slot)).stdout
        assert "names its speaker" in receipts
        assert "8.6" in receipts
        # A week has room for one training: all decline another, whatever its name, and nothing is released.
        plan.write_text(plan.read_text().replace("name: toy", "name: another"))
        again = fa(*asked, code=None)
        assert again.returncode in (Refused.exit_code, 4)
        with up.store() as kept:
            assert kept.find("latest").id == release.id

"""`fa train` from end to end on one machine: norms, clip, a round, a candidate, and one that is held."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from clients.models.adapters import Adapters
from clients.models.formats import content
from clients.models.head import Head
from fa_core.cli import build
from fa_core.errors import BadInput, Refused
from fa_core.rollout import models
from fa_core.store import open_store
from tests.training import toy

HERE, THERE = 240, 160


class World:
    """A store with the base head in its registry, a fleet, public speech, and plans."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, str(folder / "store")
        random, groups = np.random.default_rng(0), ["here"] * HERE + ["there"] * THERE
        toy.base_head().save(folder / "base.npz")
        toy.speech().save(folder / "public.npz")
        added = self.fa("model", "add", folder / "base.npz", "--version", "base-1", "--licence", "MIT",
                        "--trained-by", "tests", "--wake-word", "okay_nabu", "--json")  # fmt: skip
        self.sha256 = str(added["sha256"])
        plan = toy.plan_of(sha256=self.sha256)
        moments = [toy.vectors(group, 2, random) for group in groups]
        self.fleet = toy.write_fleet(folder / "fleet", groups, moments, plan)
        self.honest = toy.write_fleet(folder / "honest", groups, moments, plan, "others")
        away = [-2.0 * toy.towards("there")[None, :]] * THERE
        mixed = ([*groups, *["there"] * THERE], [*moments, *away])
        self.attacked = toy.write_fleet(folder / "attacked", *mixed, plan, "others")

    def plan(self, name: str, **changes: object) -> Path:
        path = self.folder / f"{name}.yaml"
        text = toy.text_of(sha256=self.sha256, **changes).replace("name: toy", f"name: {name}")
        path.write_text(text)
        return path

    def fa(self, *arguments: object, code: int = 0) -> dict[str, object]:
        """Run a command and return the JSON that it prints, after checking how it ends."""
        store = [] if "check" in arguments else ["--store", self.store]
        done = CliRunner().invoke(build(), [*map(str, arguments), *store])
        ended = (
            done.exit_code
            if done.exception is None or isinstance(done.exception, SystemExit)
            else getattr(done.exception, "exit_code", 1)
        )
        assert ended == code, (done.output, done.exception)
        text = done.stdout
        return json.loads(text) if text.startswith("{") else {"said": text, "error": str(done.exception)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("train"))


def test_from_norms_to_a_candidate_that_nobody_runs(world: World) -> None:
    norms = world.plan("norms", method="norm_histogram", clip="", segments="", epsilon="0.8")
    asked = world.fa("run", norms, "--fleet", world.fleet, "--engine", "tables", "--json")
    said = world.fa("train", "clip", asked["release"], "--json")
    clip = float(str(said["clip"]))
    assert 0.4 < clip < 2.0
    plan = world.plan("toy", clip=f"clip: {clip:g}\nclip_from: {said['release']}")
    checked = world.fa("train", "check", plan, "--json")
    assert any("biometric" in str(rule) for rule in checked["rules"])  # type: ignore[attr-defined]
    assert 8 < float(str(checked["epsilon_between_voices"])) < 9
    public = ("--public", world.folder / "public.npz")
    expected = world.fa("train", "preview", plan, *public, "--devices", 400, "--json")
    assert [each["group"] for each in expected["groups"]] == ["here", "there"]  # type: ignore[attr-defined]
    ran = world.fa("train", "run", plan, *public, "--fleet", world.fleet, "--engine", "tables", "--json")
    assert ran["held"] is False
    counts = {each["group"]: each["devices"] for each in ran["groups"]}  # type: ignore[attr-defined]
    assert abs(counts["here"] - HERE) < 60
    with open_store(world.store) as store:
        release = store.release(str(ran["release"]))
        assert release.simulated
        assert release.secure_aggregation is False  # the engine tables forms no masked sum
        charged = store.charges("toys")
        assert [each.cost for each in charged][-1] == release.layout.cost
        found = models.find(store, str(ran["candidate"]))
        adapters = content(found.manifest, store.artefact(found.manifest.sha256))
        assert isinstance(adapters, Adapters)
        assert found.manifest.base == world.sha256
        assert str(ran["release"]) in found.manifest.trained_by
    out = world.folder / "there.npz"
    world.fa("train", "head", ran["candidate"], "--group", "there", "--out", out)
    assert Head.load(out).weights.shape == toy.base_head().weights.shape
    assert Head.load(out).threshold == adapters.thresholds[1]
    assert "Against another voice it is up to (8." in str(world.fa("results", "show")["said"])
    shown = world.fa("train", "show", "--json")
    assert shown["release"] == ran["release"]
    # The step again from the release that is there: nothing is asked and nothing charged.
    again = world.fa("train", "run", *public, "--release", "latest", "--version", "toy-2", "--json")
    assert again["artefact"] != ran["artefact"]
    with open_store(world.store) as store:
        assert len(store.charges("toys")) == len(charged)


def test_a_poisoned_release_is_held_and_leaves_nothing_in_the_registry(world: World) -> None:
    plan = world.plan("attacked", epsilon="2")
    asked = ("train", "run", plan, "--public", world.folder / "public.npz", "--engine", "tables")
    first = world.fa(*asked, "--fleet", world.honest, "--json")
    assert (first["held"], first["compared_with"]) == (False, "")
    held = world.fa(*asked, "--fleet", world.attacked, code=Refused.exit_code)
    assert "is held, and not in the registry" in str(held["error"])
    assert "there: its mean moved by" in str(held["said"])
    with open_store(world.store) as store:
        release = store.find("latest").id
        versions = [each.manifest.version for each in models.models(store)]
    assert f"base-1-{release[:8]}" not in versions
    assert first["candidate"] in versions


def test_what_cannot_be_is_refused_before_it_is_charged(world: World) -> None:
    public = ("--public", world.folder / "public.npz")
    plan = world.plan("small", epsilon="2")
    refused = world.fa("train", "preview", plan, *public, "--devices", 150, code=Refused.exit_code)
    assert "about 75 devices in here" in str(refused["error"])
    norms = world.plan("only-norms", method="norm_histogram", clip="", segments="")
    wrong = world.fa("train", "run", norms, *public, "--fleet", world.fleet, code=BadInput.exit_code)
    assert "trains nothing" in str(wrong["error"])
    elsewhere = world.plan("elsewhere")
    elsewhere.write_text(elsewhere.read_text().replace(world.sha256, "f" * 64))
    missing = world.fa("train", "run", elsewhere, *public, "--fleet", world.fleet, code=BadInput.exit_code)
    assert "is not in this store" in str(missing["error"])
    with open_store(world.store) as store:
        assert not {each.family for each in store.charges("toys")} & {"small", "only-norms", "elsewhere"}

"""From a published model to a detector, and the whole way there: added, published, fetched, run."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from clients.models import head, policy, thresholds
from clients.models.believe import Able, Shipped
from clients.models.formats import EMBEDDING_RUNTIME, MICRO_RUNTIME, published_form
from clients.runtime import detectors, published
from clients.runtime.detectors import EmbeddingDetector, MicroDetector, shipped_head
from clients.runtime.published import open_policy, open_published, shipped
from fa_core.cli import build
from fa_core.errors import BadInput, Refused
from fa_core.rounds.keys import keys_folder, local_keys
from tests.models.samples import NOW, Device, Publisher, random_head, raw

OWN = {each.version: digest for digest, each in shipped().items() if each.wake_word == "okay_nabu"}


@pytest.fixture
def device(tmp_path: Path) -> Device:
    made = Device.make(tmp_path, Publisher(tmp_path / "published"))
    made.able = Able(published.RUNTIMES, shipped(), 1 << 20)
    return made


def opened(device: Device, data: bytes, **changes: Any) -> detectors.Detector:
    digest = device.publisher.publish(data, **changes)
    device.models().obtain(digest, NOW)
    return open_published(device.models(), digest)


def test_shipped_models_have_the_names_under_which_they_are_published(tmp_path: Path) -> None:
    file = Path(detectors.__file__).with_name("embed_okay_nabu.npz")
    assert OWN["embed-1"] == sha256(published_form("head", file, "embed-1")).hexdigest()
    assert shipped()[OWN["micro-1"]] == Shipped("micro-1", "okay_nabu", MICRO_RUNTIME)


def test_a_head_gives_a_detector(device: Device) -> None:
    data = head.encode(replace(shipped_head("okay_nabu"), model_version="embed-2"), encoding="int8")
    found = opened(device, data, version="embed-2")
    assert isinstance(found, EmbeddingDetector)
    assert (found.wake_word, found.model_version) == ("okay_nabu", "embed-2")
    assert found.feed(np.zeros(40_000, np.int16)).size


def test_thresholds_give_the_detector_of_their_base(device: Device) -> None:
    kinds = {"micro-1": (MicroDetector, MICRO_RUNTIME), "embed-1": (EmbeddingDetector, EMBEDDING_RUNTIME)}
    for version, (kind, runtime) in kinds.items():
        name = f"{version}-t"
        limits = thresholds.encode(name, {"okay_nabu": "0.935"})
        found = opened(device, limits, kind="thresholds", base=OWN[version], runtime=runtime, version=name)
        assert isinstance(found, kind)
        assert (found.threshold, found.model_version) == (0.935, f"{version}-t")
    assert open_published(device.models(), OWN["embed-1"]).threshold == shipped_head("okay_nabu").threshold


def test_an_adapter_is_added_to_its_base(device: Device) -> None:
    own = shipped_head("okay_nabu")
    change = replace(own, model_version="a-1", threshold=0.7, bias=0.5, weights=0.1 * own.weights)
    data = head.encode(change, "adapter")
    found = opened(device, data, kind="adapter", base=OWN["embed-1"], version="a-1")
    assert isinstance(found, EmbeddingDetector)
    np.testing.assert_allclose(found._head.weights, 1.1 * own.weights, rtol=1e-5)
    assert (found._head.bias, found.threshold) == (own.bias + 0.5, 0.7)
    other = head.encode(random_head(3, "a-2"), "adapter")
    with pytest.raises(BadInput, match="for another head"):
        opened(device, other, kind="adapter", base=OWN["embed-1"], version="a-2")


def test_what_is_no_detector_is_not_run_as_one(device: Device) -> None:
    rules = policy.encode(policy.parse(b'{"rules": [{"action": "confirm"}]}'))
    with pytest.raises(BadInput, match="no detector but policy"):
        opened(device, rules, kind="policy", runtime="policy-1", version="p-1")
    assert open_policy(device.models(), sha256(rules).hexdigest()).rules[0].action == "confirm"
    with pytest.raises(BadInput, match="no policy"):
        open_policy(device.models(), OWN["embed-1"])


def test_a_network_of_native_code_is_run_only_where_it_was_shipped(device: Device) -> None:
    from clients.models.believe import RefusedModel

    with pytest.raises(RefusedModel, match="has not what runs"):
        opened(device, b"\x1c\0\0\0TFL3 of a stranger", runtime=MICRO_RUNTIME)


# The whole way.

CONFIG = """\
name = "kitchen"
[trust]
log = "{log}"
witness = "{witness}"
authority = "{authority}"
revoked = [{revoked}]
[[trust.plan_keys]]
name = "voice quality"
key = "{plan}"
first = 2000-01-01
last = 2999-12-31
[models]
published = "../published"
"""


def fa(*arguments: object) -> str:
    done = CliRunner().invoke(build(), list(map(str, arguments)))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_a_model_goes_from_its_file_to_a_listening_device(tmp_path: Path) -> None:
    store, home = tmp_path / "store", tmp_path / "kitchen"
    replace(shipped_head("okay_nabu"), model_version="embed-2").save(tmp_path / "head.npz")
    about = ("--wake-word", "okay_nabu", "--licence", "Apache-2.0", "--trained-by", "us", "--store", store)
    added = json.loads(fa("model", "add", tmp_path / "head.npz", "--version", "embed-2", *about, "--json"))
    fa("model", "publish", tmp_path / "published", "--store", store)
    keys = local_keys(keys_folder(str(store)))
    names = {name: raw(getattr(keys, name)).hex() for name in ("plan", "log", "witness")}
    home.mkdir()
    trusted = CONFIG.format(**names, authority=keys.authority.public_key.hex(), revoked="")
    (home / "device.toml").write_text(trusted)
    fa("device", "init", "--dir", home)
    with pytest.raises(Refused, match="neither here nor published"):
        fa("device", "listen", tmp_path, "--model", added["sha256"], "--dir", home)
    assert json.loads(fa("device", "fetch", added["sha256"], "--dir", home, "--json"))["version"] == "embed-2"
    soundfile.write(tmp_path / "quiet.wav", np.zeros(40_000, np.int16), 16_000)
    heard = fa(
        "device", "listen", tmp_path / "quiet.wav", "--model", added["sha256"], "--dir", home, "--json"
    )
    assert json.loads(heard)["wakes"] == 0
    rules = tmp_path / "rules.json"
    rules.write_text('{"rules": [{"action": "tighter_threshold", "threshold": "0.97"}]}')
    careful = json.loads(
        fa("model", "add", rules, "--kind", "policy", "--version", "careful-1", *about, "--json")
    )
    fa("model", "publish", tmp_path / "published", "--store", store)
    fa("device", "fetch", careful["sha256"], "--dir", home)
    for named in (rules, careful["sha256"]):
        fa("device", "listen", tmp_path / "quiet.wav", "--policy", named, "--dir", home)
    for named, kind in (
        (tmp_path / "none", BadInput),
        (tmp_path / "quiet.wav", BadInput),
        ("0" * 64, Refused),
    ):
        with pytest.raises(kind, match=str(named)):
            fa("device", "listen", tmp_path / "quiet.wav", "--policy", named, "--dir", home)
    assert "Took in the head embed-2 for okay_nabu" in fa("device", "receipts", "--all", "--dir", home)
    (home / "device.toml").write_text(trusted.replace("revoked = []", f'revoked = ["{names["plan"]}"]'))
    for command in (
        ("fetch", added["sha256"]),
        ("listen", tmp_path / "quiet.wav", "--model", added["sha256"]),
    ):
        with pytest.raises(Refused, match="signed by a key that was revoked"):
            fa("device", *command, "--dir", home)


def test_the_pages_policy_is_one() -> None:
    text = Path("docs/device.md").read_text(encoding="utf-8")
    rules = text.partition("```json\n")[2].partition("```")[0]
    assert len(policy.parse(rules.encode()).rules) == 3

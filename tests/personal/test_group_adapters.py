"""A device that runs its group's adapter, of a training plan, learns its owner on top of it."""

import numpy as np
import pytest

from clients.device.personal import KeptMoment
from clients.models import adapters as form
from clients.models.adapters import Adapters
from clients.models.sources import Folder
from clients.personal.adapter import Windows, adapted, temporal_shape, windows_of
from clients.personal.collect import session_of
from clients.personal.hearing import PersonalChoice
from clients.personal.learning import kept_anchors
from clients.personal.moments import encode
from clients.rollout.acting import Choice
from clients.runtime.published import models_of, open_head
from fa_core.publication import directory
from fa_core.publication.signed import SignedDocument
from tests.models.samples import manifest_of
from tests.personal.devices import BASE, DAY, HEAD, PHRASES, WORD, Owned

RANDOM = np.random.default_rng(17)
GROUPS = Adapters(
    WORD,
    "embed-1-groups",
    "accent",
    ("here", "other"),
    temporal_shape(HEAD).astype(np.float32),
    RANDOM.normal(0, 0.002, (2, 96)).astype(np.float32),
    np.array([0.0, 0.3]),
    np.array([0.5, HEAD.threshold]),
)


def published(owned: Owned, adapters: Adapters) -> str:
    """Publish adapters of groups, keep them on the device, and return their hash."""
    data, folder = form.encode(adapters), owned.folder / "published"
    manifest = manifest_of(data, kind="adapter", version=adapters.model_version, base=BASE)
    entry = SignedDocument.sign("model", manifest.document(), owned.publisher.world.plan_key).entry()
    directory.write(folder, directory.model_name(manifest.sha256), owned.publisher.file(entry))
    directory.write(folder, directory.artefact_name(manifest.sha256), data)
    models_of(owned.home, Folder(folder)).obtain(manifest.sha256, owned.now)
    return manifest.sha256


def remember(owned: Owned, base: str, windows: Windows) -> None:
    with owned.home.store.transaction(owned.now):
        for at in range(6):
            time = owned.now - at * DAY
            kept = KeptMoment(time, WORD, base, session_of(time), "retry", encode(windows))
            owned.records.keep_moment(kept, owned.now)


def test_features_stay_those_of_the_head_below(owned: Owned) -> None:
    groups = published(owned, GROUPS)
    head = open_head(models_of(owned.home), groups)
    assert head is not None
    assert head.model_version == "embed-1-groups"
    assert head.threshold == HEAD.threshold  # the group `other`: this device has no such fact
    below, above = (windows_of(each, PHRASES["missed"]) for each in (HEAD, head))
    assert np.allclose(above.features, below.features, atol=1e-5)
    owned.fetch_anchors()
    public, own = (kept_anchors(owned.home, each, WORD) for each in (BASE, groups))
    assert public is not None
    assert own is not None
    assert own.base == groups
    step = GROUPS.directions[1].astype(np.float64) * 100
    assert np.allclose(own.near[0].base, public.near[0].base + public.near[0].features @ step + 0.3)


def test_it_learns_on_top_of_its_group(owned: Owned) -> None:
    groups = published(owned, GROUPS)
    head = open_head(models_of(owned.home), groups)
    assert head is not None
    owned.consent()
    owned.fetch_anchors()
    owned.conditions()
    remember(owned, groups, windows_of(head, PHRASES["missed"]))
    owned.look()
    assert owned.stage() == (1, "candidate")
    heard = owned.microphone(Choice(bytes.fromhex(groups), None, "the rollout is complete"))
    choice = heard.session.choice
    assert isinstance(choice, PersonalChoice)
    assert choice.heads.adapter is not None
    delta = choice.heads.adapter.delta
    assert delta.base == groups
    personal = adapted(head, delta.step, delta.threshold, "personal")
    windows = windows_of(head, PHRASES["missed"])
    assert np.allclose(windows_of(personal, PHRASES["missed"]).base, delta.step.logits(windows), atol=1e-4)
    heard.missed()
    assert ("embed-1-groups", False) in heard.woke
    assert owned.stage() == (1, "shadow")


@pytest.mark.parametrize("shape", [np.ones(16), -temporal_shape(HEAD)])
def test_features_of_another_shape_have_no_anchors(owned: Owned, shape: np.ndarray) -> None:
    moved = Adapters(**(vars(GROUPS) | {"shape": shape.astype(np.float32)}))
    owned.fetch_anchors()
    assert kept_anchors(owned.home, published(owned, moved), WORD) is None

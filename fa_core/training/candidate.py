"""From a release to a candidate: the step, what holds it, and the artefact with its provenance. Pure."""

from dataclasses import dataclass
from hashlib import sha256

from clients.models import adapters as form
from clients.models.adapters import Adapters
from clients.models.formats import EMBEDDING_RUNTIME
from clients.models.head import Head
from fa_core.errors import Refused
from fa_core.metrics import exact_text
from fa_core.plan import TrainPlan
from fa_core.publication.artefact import ArtefactManifest
from fa_core.training import checks
from fa_core.training.checks import Alarm
from fa_core.training.public import PublicSpeech
from fa_core.training.step import Blocks, Floats, blocks_of, plan_of, refit, shrunk
from fa_core.values import Release


@dataclass(frozen=True)
class Candidate:
    """What came of a training release.

    Attributes:
        blocks: the release's groups. weights: of each one's own mean in its step, (B,).
        adapters: of every group. alarms: why it is held; () where nothing holds it.
        compared: id of the release before that it was compared with, "" where there was none.
    """

    blocks: Blocks
    weights: Floats
    adapters: Adapters
    alarms: tuple[Alarm, ...]
    compared: str


def candidate(
    release: Release, base: Head, version: str, public: PublicSpeech, before: Release | None
) -> Candidate:
    """Return the candidate of a release, and what holds it.

    Args:
        base: the head that the plan names. version: of the candidate, as `model_version` of events will have
        it.
        before: the last release of the same plan with the same centre and groups, if there is one.

    Raises Refused where fewer devices than the plan's least have any moment, by their noisy count.
    """
    plan, blocks = plan_of(release), blocks_of(release)
    if (devices := float(blocks.devices.sum())) < plan.privacy.min_cohort:
        raise Refused(
            f"about {max(devices, 0.0):.0f} devices have moments of {plan.base.version}, and nothing is "
            f"trained on fewer than {plan.privacy.min_cohort}"
        )
    steps, weights = shrunk(blocks)
    adapters = refit(steps, plan, base, version, public)
    alarms = checks.sums(blocks, plan.gates, None if before is None else blocks_of(before))
    alarms += checks.speech(adapters, base, public, plan.gates)
    return Candidate(blocks, weights, adapters, alarms, "" if before is None else before.id)


def comparable(plan: TrainPlan, other: TrainPlan) -> bool:
    """Return whether the sums of two training plans mean the same, but for how they were clipped."""
    return (plan.metadata.name, plan.center, plan.blocks, plan.base) == (
        other.metadata.name, other.center, other.blocks, other.base,
    )  # fmt: skip


def artefact(found: Candidate, release: Release, licence: str) -> tuple[ArtefactManifest, bytes]:
    """Return the manifest and the bytes of a candidate. Its provenance is in the manifest, which is
    signed."""
    plan, data = plan_of(release), form.encode(found.adapters)
    own = sum(bool(weight > 0) for weight in found.weights)
    provenance = (
        f"fa train: plan {plan.name} {plan.hash[:16]}, release {release.id}, epsilon "
        f"{exact_text(plan.privacy.epsilon)} delta {float(plan.privacy.delta):g} for each device, "
        f"{release.participation.counted} devices, {own} of {len(found.weights)} groups by their own mean, "
        f"base {plan.base.version} {plan.base.sha256[:16]}" + (", SIMULATION" if release.simulated else "")
    )
    manifest = ArtefactManifest(
        kind="adapter",
        name=found.adapters.model_version,
        version=found.adapters.model_version,
        wake_word=found.adapters.wake_word,
        runtime=EMBEDDING_RUNTIME,
        base=plan.base.sha256,
        sha256=sha256(data).hexdigest(),
        size=len(data),
        licence=licence,
        trained_by=provenance,
    )
    return manifest, data

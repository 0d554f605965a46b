"""A toy world of training: a base head, public speech and devices whose groups lie apart, drawn by a seed."""

import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clients.evaluate import Cohort
from clients.models import head
from clients.models.head import EMBEDDING_SIZE, Head
from clients.personal.adapter import Windows
from clients.personal.features import LOGIT_SCALE
from fa_core.plan import TrainPlan, parse
from fa_core.tables import MOMENTS, VECTOR
from fa_core.training.public import Clip, PublicSpeech

NOW = datetime(2026, 11, 22, 7, tzinfo=UTC)
GROUPS = ("here", "there")
Floats = NDArray[np.float64]

TEXT = """
apiVersion: fa/v1
kind: TrainPlan
metadata: {{name: toy, revision: 1, owner: tests, question: Is everyone heard?, expires: 2099-03-31}}
window: 28d
base: {{wake_word: okay_nabu, version: base-1, sha256: "{sha256}"}}
adapter: frame1
method: {method}
center: [{center}]
{clip}
{segments}
eligibility: {{consent: {consent}}}
privacy: {{epsilon: {epsilon}, delta: 1e-8, min_cohort: {least}{privacy}}}
"""


def text_of(**changes: object) -> str:
    """Return the text of the toy's plan, with fields changed."""
    fields: dict[str, object] = {
        "sha256": "0" * 64,
        "method": "one_shot_means",
        "center": ", ".join(["0"] * VECTOR),
        "clip": "clip: 1",
        "segments": "segments: {accent: {device: accent, values: [here, there]}}",
        "consent": "personalisation",
        "epsilon": "4",
        "least": "100",
        "privacy": "",
    }
    return TEXT.format(**(fields | changes))


def plan_of(**changes: object) -> TrainPlan:
    """Return the toy's plan."""
    plan = parse(text_of(**changes).encode(), "toy.yaml", policy=None)
    assert isinstance(plan, TrainPlan)
    return plan


def norms_plan(**changes: object) -> TrainPlan:
    """Return the toy's plan of a norm histogram."""
    return plan_of(method="norm_histogram", clip="", segments="", **changes)


def base_head() -> Head:
    """Return a head of four frames that wakes for embeddings near 1 in its first direction."""
    weights = np.zeros((4, EMBEDDING_SIZE), np.float32)
    weights[:, 0] = 1.0
    return Head("okay_nabu", "base-1", 0.5, weights, -2.0)


def base_sha256() -> str:
    """Return the hash of `base_head` as it is published."""
    return sha256(head.encode(base_head())).hexdigest()


def towards(group: str) -> Floats:
    """Return where a group's speakers lie from the centre, float64 (97,)."""
    step = np.zeros(VECTOR)
    step[1 if group == "here" else 2] = 0.5
    step[-1] = 0.0 if group == "here" else -0.4
    return step


def vectors(group: str, count: int, random: np.random.Generator) -> Floats:
    """Return moments of a group, float64 (count, 97)."""
    return towards(group) + 0.05 * random.standard_normal((count, VECTOR))


def speech(seed: int = 0) -> PublicSpeech:
    """Return public speech: wake words around the centre, of both groups where they lie, and what is none."""
    random = np.random.default_rng(seed)

    def clip(kind: str, group: str, vector: Floats) -> Clip:
        noise = 0.02 * random.standard_normal((3, EMBEDDING_SIZE))
        base = vector[-1] * LOGIT_SCALE + np.array([-0.5, 0.0, -0.5])
        return Clip(kind, group, Windows(base, vector[:-1] + noise))  # type: ignore[arg-type]

    wake = np.append(np.zeros(EMBEDDING_SIZE), 0.2)
    other = -1.5 * wake
    clips = [clip("wake", "", wake + 0.05 * random.standard_normal(VECTOR)) for _ in range(20)]
    clips += [clip("wake", g, wake + vectors(g, 1, random)[0]) for g in GROUPS for _ in range(16)]
    for kind in ("human", "near", "phrase"):
        clips += [clip(kind, "", other + 0.02 * random.standard_normal(VECTOR)) for _ in range(20)]
    return PublicSpeech(tuple(clips), 160.0)


def fleet(groups: list[str], moments: list[Floats], plan: TrainPlan) -> Cohort:
    """Return devices, each of a group with moments float64 (m, 97), as counting reads them."""
    sizes = [len(each) for each in moments]
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    codes = np.array([GROUPS.index(group) if group in GROUPS else -1 for group in groups], np.int64)
    ids = tuple(f"d{number:04d}" for number in range(len(sizes)))
    return Cohort(ids, {"accent": (codes, GROUPS)}, {"moments": table(moments, plan)}, {"moments": offsets})


def table(moments: list[Floats], plan: TrainPlan) -> pa.Table:
    """Return moments as rows of the table."""
    rows = sum(len(each) for each in moments)
    flat = np.concatenate([each.ravel() for each in moments] or [np.empty(0)]).astype(np.float32)
    return pa.table(
        {
            "time": pa.array([NOW - timedelta(days=1)] * rows, pa.timestamp("us", tz="UTC")),
            "wake_word": pa.array([plan.base.wake_word] * rows),
            "base": pa.array([plan.base.sha256] * rows),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(flat), VECTOR),
        }
    ).cast(MOMENTS.arrow_schema())


def write_fleet(
    folder: Path, groups: list[str], moments: list[Floats], plan: TrainPlan, population: str = "toys"
) -> Path:
    """Write a fleet directory with moments, and return it."""
    folder.mkdir()
    cohort = fleet(groups, moments, plan)
    facts = {"device_class": ["speaker"] * len(groups), "app_version": ["1"] * len(groups)}
    pq.write_table(pa.table({"device_id": cohort.ids, "accent": groups, **facts}), folder / "devices.parquet")
    owner = np.repeat(cohort.ids, np.diff(cohort.offsets["moments"]))
    rows = cohort.tables["moments"].add_column(0, "device_id", pa.array(owner).dictionary_encode())
    pq.write_table(rows.cast(MOMENTS.arrow_schema(device_id=True)), folder / "moments.parquet")
    about = {"population": population, "until": NOW.isoformat(), "synthetic": True}
    (folder / "fleet.json").write_text(json.dumps(about))
    return folder

"""The bytes of an invitation: read back as written, refused otherwise, and small whatever the log's size."""

import json
import zlib
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.device.records import Seen
from clients.device.trust import PinnedKey, Pins, believe
from fa_core.errors import BadInput
from fa_core.plan import load
from fa_core.wire.invitation import MAGIC, MAX_BYTES, decode, encode, fields_of, pack, unpack
from scripts.bench.secagg import invitation_under
from tests.device.setup import NOW, World, plan_of
from tests.wire.make_vectors import FILE, vector

PLANS = sorted((Path(__file__).parents[2] / "eval_plans").glob("*.yaml"))
INVITATION = World(Path("unused")).invite(plan_of(), bytes(16), NOW, NOW)
FIELDS = fields_of(INVITATION)


def test_it_is_read_back_as_it_was_written_however_well_it_was_compressed() -> None:
    assert decode(encode(INVITATION)) == INVITATION
    assert all(decode(MAGIC + zlib.compress(FIELDS, level)) == INVITATION for level in range(10))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        FIELDS,
        encode(INVITATION).replace(b"-3\n", b"-2\n"),
        MAGIC + FIELDS,
        encode(INVITATION)[:-1],
        encode(INVITATION) + b"\0",
        pack(FIELDS[:-1]),
        pack(FIELDS + b"\0"),
        pack(b""),
    ],
    ids=["nothing", "no magic", "version 2", "not compressed", "cut off", "more behind", "a field cut off",
         "more in it", "no fields"],
)  # fmt: skip
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput):
        decode(data)


def test_a_stream_that_unpacks_to_more_than_allowed_is_refused_before_it_is_whole() -> None:
    assert len(unpack(pack(bytes(MAX_BYTES)))) == MAX_BYTES
    with pytest.raises(BadInput, match="at most"):
        unpack(pack(bytes(MAX_BYTES + 1)))
    with pytest.raises(BadInput, match="at most"):
        decode(pack(bytes(2 * MAX_BYTES)))


def test_the_published_invitation_is_what_the_package_makes_and_is_believed() -> None:
    published = json.loads(FILE.read_text())
    assert {**vector(), "invitation": ""} == {**published, "invitation": ""}
    data, keys = bytes.fromhex(published["invitation"]), published["keys"]
    invitation = decode(data)
    assert fields_of(invitation).hex() == published["fields"]
    signer, *rest = (bytes.fromhex(keys[name]) for name in ("plan", "log", "witness", "authority"))
    always = PinnedKey("published", signer, NOW - timedelta(days=1), NOW + timedelta(days=1))
    population = bytes.fromhex(published["population"]["id"])
    pins = Pins((always,), frozenset(), *rest, skew=timedelta(days=1))
    believed = believe(invitation, pins, population, Seen(0, b"", None, None), lambda name: 0, NOW)
    assert believed.moment.witnessed.isoformat() == published["witnessed"]
    assert believed.charge.release == invitation.release.hex() == bytes(range(16)).hex()


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    for each in (data, MAGIC + data, pack(data)):
        with pytest.raises(BadInput):
            decode(each)


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_shipped_plans_need_4_kib_under_a_log_of_a_billion_entries_and_training_plans_5(path: Path) -> None:
    plan = load(path, today=date(2026, 11, 22))
    center = 1024 if plan.kind == "TrainPlan" else 0  # 97 numbers of its own
    sizes = [len(encode(invitation_under(plan, 2**levels))) for levels in (1, 10, 20, 30)]
    assert sizes == sorted(sizes)
    assert sizes[-1] < 4096 + center

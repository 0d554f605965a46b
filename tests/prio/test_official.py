"""The official test vectors of Prio3 and of L1BoundSum, byte for byte, where they are there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fa_core.prio.circuits import Histogram, L1BoundSum, MultihotCountVec, SumVec
from fa_core.prio.field import FIELD64, FIELD128
from fa_core.prio.flp import query, sizes
from fa_core.prio.prio3 import Input, Prio3
from tests.prio import reference
from tests.prio.reference import P64, P128, Reference
from tests.prio.turboshake import TurboShake

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "vdaf"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the official test vectors are not there: {FOLDER.name}"
)
FILES = sorted(FOLDER.glob("Prio3*.json"))
OF_TWO = [path for path in FILES if json.loads(path.read_text())["shares"] == 2]


def prio(name: str, vector: dict[str, Any]) -> Prio3:
    chunk, xof, count = vector["chunk_length"], TurboShake(), vector["length"]
    match name:
        case "SumVec":
            return Prio3(SumVec(FIELD128, count, vector["max_measurement"], chunk), 3, xof, 1)
        case "SumVecWithMultiproof":
            return Prio3(SumVec(FIELD64, count, vector["max_measurement"], chunk), 0xFFFFFFFF, xof, 3)
        case "Histogram":
            return Prio3(Histogram(FIELD128, count, chunk), 4, xof, 1)
        case "MultihotCountVec":
            return Prio3(MultihotCountVec(FIELD128, count, vector["max_weight"], chunk), 5, xof, 1)
        case _:
            assert name == "L1BoundSum"
            return Prio3(L1BoundSum(FIELD128, count, vector["max_value"], chunk), 7, xof, 1)


def plain(name: str, vector: dict[str, Any]) -> Reference:
    chunk, count = vector["chunk_length"], vector["length"]
    p, algorithm_id, proofs = (
        P128,
        {"SumVec": 3, "Histogram": 4, "MultihotCountVec": 5, "L1BoundSum": 7}.get(name),
        1,
    )
    match name:
        case "SumVec":
            circuit = reference.sum_vec(p, count, vector["max_measurement"], chunk)
        case "SumVecWithMultiproof":
            circuit = reference.sum_vec(P64, count, vector["max_measurement"], chunk)
            algorithm_id, proofs = 0xFFFFFFFF, 3
        case "Histogram":
            circuit = reference.histogram(p, count, chunk)
        case "MultihotCountVec":
            circuit = reference.multihot(p, count, vector["max_weight"], chunk)
        case _:
            circuit = reference.l1_bound(p, count, vector["max_value"], chunk)
    assert algorithm_id is not None
    return Reference(circuit, algorithm_id, TurboShake(), proofs, vector["shares"])


def load(path: Path) -> tuple[str, dict[str, Any]]:
    return path.stem.split("_")[0].removeprefix("Prio3"), json.loads(path.read_text())


def measured(report: dict[str, Any]) -> list[int]:
    value = report["measurement"]
    return value if isinstance(value, list) else [value]


def operations(vector: dict[str, Any], name: str, report: int) -> Iterator[bool]:
    """Whether each operation of this name on this report succeeds."""
    for operation in vector["operations"]:
        if operation["operation"] == name and operation["report_index"] == report:
            yield operation["success"]


@pytest.mark.parametrize("path", OF_TWO, ids=lambda path: path.stem)
def test_the_product_agrees_with_the_vectors_of_two_aggregators(path: Path) -> None:
    name, vector = load(path)
    vdaf, ctx, key = prio(name, vector), bytes.fromhex(vector["ctx"]), bytes.fromhex(vector["verify_key"])
    reports, encode = vector["reports"], vdaf.circuit.field.encode
    nonces = [bytes.fromhex(report["nonce"]) for report in reports]
    for index, (report, nonce) in enumerate(zip(reports, nonces, strict=True)):
        if any(operations(vector, "shard", index)):
            shares = vdaf.shard(ctx, measured(report), nonce, bytes.fromhex(report["rand"]))
            assert shares.public.hex() == report["public_share"]
            assert [shares.leader.hex(), shares.helper.hex()] == report["input_shares"]
    begun = []
    for role in (0, 1):
        inputs = [
            Input(nonce, bytes.fromhex(report["public_share"]), bytes.fromhex(report["input_shares"][role]))
            for report, nonce in zip(reports, nonces, strict=True)
        ]
        begun.append(vdaf.begin(role, key, ctx, inputs))
        assert not any(begun[role].refused)
        assert [share.hex() for share in begun[role].verifiers] == [
            report["verifier_shares"][0][role] for report in reports
        ]
    messages = vdaf.decide(ctx, begun[0].verifiers, begun[1].verifiers)
    for index, (message, report) in enumerate(zip(messages, reports, strict=True)):
        assert (message is not None) == all(operations(vector, "verifier_shares_to_message", index))
        if message is not None:
            assert [message.hex()] == report["verifier_messages"]
            outputs = [vdaf.circuit.truncate(side.inputs[index : index + 1]) for side in begun]
            assert [encode(output).hex() for output in outputs] == report["out_shares"]
    finished = [vdaf.finish(side, messages) for side in begun]
    for side in finished:
        assert side.accepted.tolist() == [message is not None for message in messages]
    if vector["agg_result"] is not None:
        assert [encode(side.total).hex() for side in finished] == vector["agg_shares"]
        assert vdaf.unshard([side.total for side in finished]).tolist() == vector["agg_result"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_plain_reference_agrees_with_all_vectors(path: Path) -> None:
    """Those of three and four aggregators too, whose verifier shares the product's `query` gives as well."""
    name, vector = load(path)
    slow, fast = plain(name, vector), prio(name, vector)
    ctx, key = bytes.fromhex(vector["ctx"]), bytes.fromhex(vector["verify_key"])
    for index, report in enumerate(vector["reports"]):
        nonce, public = bytes.fromhex(report["nonce"]), bytes.fromhex(report["public_share"])
        shares = [bytes.fromhex(share) for share in report["input_shares"]]
        if any(operations(vector, "shard", index)):
            encoded = [int(value) for value in fast.circuit.encode(measured(report))]
            assert slow.shard(ctx, encoded, nonce, bytes.fromhex(report["rand"])) == (public, shares)
        begun = [slow.begin(role, key, ctx, nonce, public, share) for role, share in enumerate(shares)]
        assert [verifier.hex() for verifier, _, _ in begun] == report["verifier_shares"][0]
        message = slow.decide(ctx, [verifier for verifier, _, _ in begun])
        assert [message.hex() if message else None] == (report["verifier_messages"] or [None])
        if message is not None:
            assert [slow.encode(output).hex() for _, output, _ in begun] == report["out_shares"]
            assert {seed for _, _, seed in begun} == {message}
        if vector["shares"] > 2:
            for role, (share, (verifier, _, seed)) in enumerate(zip(shares, begun, strict=True)):
                assert queried(fast, slow, ctx, key, nonce, role, share, seed) == verifier[:-32]


def queried(
    fast: Prio3, slow: Reference, ctx: bytes, key: bytes, nonce: bytes, role: int, share: bytes, seed: bytes
) -> bytes:
    """The product's verifier share for one of `slow.aggregators`."""
    field, length = fast.circuit.field, fast.circuit.length
    values = slow.decode(share[:-32])
    vector, proof = slow.helper(ctx, role, share[:32]) if role else (values[:length], values[length:])
    each = sizes(fast.circuit).query_random
    random = slow.expand(key, ctx, 5, bytes((fast.proofs,)) + nonce, fast.proofs * each)
    verifier, usable = query(
        fast.circuit,
        field.array([vector]),
        field.array(np.array(proof, dtype=object).reshape(1, fast.proofs, -1)),
        field.array(np.array(random, dtype=object).reshape(1, fast.proofs, -1)),
        field.array(np.array(slow.joint(ctx, seed), dtype=object)[None]),
        slow.aggregators,
    )
    assert usable.all()
    return field.encode(verifier)

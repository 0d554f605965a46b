"""The unmasked round adds up too, is driven alike, and refuses alike."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fa_core.secagg import Reason, Refusal, RoundFailure, Stage, Trust, messages, plain
from tests.secagg.lab import AUTHORITY, IDENTITIES, TASK

TRUST = Trust(AUTHORITY.public_key, bytes(32), min_devices=4)


def parties(rows: NDArray[np.int64]) -> dict[int, plain.DeviceParty]:
    return {
        i: plain.DeviceParty(TASK, IDENTITIES[i], TRUST, lambda n, i=i: rows[i])  # type: ignore[misc]
        for i in range(len(rows))
    }


def drive(server: plain.Server, cohort: dict[int, plain.DeviceParty], lost: set[tuple[Stage, int]]) -> None:
    while server.stage is not None:
        stage = server.stage
        replies = {
            node: getattr(cohort[node], stage.value)(request)
            for node, request in server.requests().items()
            if (stage, node) not in lost
        }
        server.receive(replies)


@pytest.mark.parametrize("bits", [32, 64])
def test_the_sum_of_those_who_answered(bits: int) -> None:
    rows = np.random.default_rng(bits).integers(-(10**6), 10**6, size=(12, TASK.length))
    task = replace(TASK, bits=bits)
    cohort = {
        i: plain.DeviceParty(task, IDENTITIES[i], TRUST, lambda n, i=i: rows[i])  # type: ignore[misc]
        for i in range(12)
    }
    server = plain.Server(task, AUTHORITY.public_key, range(12))
    drive(server, cohort, {(Stage.JOIN, 1), (Stage.MASKED, 5)})
    counted = [i for i in range(12) if i not in (1, 5)]
    assert server.result.counted == tuple(counted)
    assert server.result.joined == server.joined == 11
    assert np.array_equal(server.result.total, rows[counted].sum(axis=0))


def test_past_the_tolerance() -> None:
    rows = np.zeros((10, TASK.length), dtype=np.int64)
    server = plain.Server(TASK, AUTHORITY.public_key, range(10))
    with pytest.raises(RoundFailure, match="3 of 10 devices are missing; at least 8 must remain") as caught:
        drive(server, parties(rows), {(Stage.MASKED, i) for i in (1, 2, 3)})
    assert (caught.value.stage, caught.value.missing) == (Stage.MASKED, 3)
    with pytest.raises(RuntimeError):
        _ = server.result
    with pytest.raises(RuntimeError):
        server.receive({})


def test_who_is_not_certified_or_comes_twice_is_left_out() -> None:
    rows = np.ones((6, TASK.length), dtype=np.int64)
    cohort = parties(rows)
    cohort[2] = plain.DeviceParty(
        TASK,
        replace(IDENTITIES[2], certificate=IDENTITIES[2].population + bytes(64)),
        TRUST,
        lambda n: rows[2],
    )
    cohort[3] = plain.DeviceParty(TASK, IDENTITIES[0], TRUST, lambda n: rows[3])
    server = plain.Server(TASK, AUTHORITY.public_key, range(6))
    drive(server, cohort, set())
    assert server.result.counted == (0, 1, 4, 5)


def test_refusals() -> None:
    party = parties(np.zeros((1, TASK.length), dtype=np.int64))[0]
    vector = messages.count_message(messages.Kind.PLAIN_VECTOR_REQUEST, TASK.session, 6)

    def refused(stage: str, request: bytes) -> Reason:
        with pytest.raises(Refusal) as caught:
            getattr(party, stage)(request)
        return caught.value.reason

    assert refused("masked", vector) is Reason.OUT_OF_ORDER
    assert refused("join", messages.join_request(replace(TASK, attempt=1))) is Reason.WRONG_TASK
    assert refused("join", b"") is Reason.MALFORMED
    reply = party.join(messages.join_request(TASK))
    assert party.join(messages.join_request(TASK)) == reply
    assert refused("join", b"") is Reason.DIFFERENT_REQUEST
    small = messages.count_message(messages.Kind.PLAIN_VECTOR_REQUEST, TASK.session, 3)
    assert refused("masked", small) is Reason.COHORT_TOO_SMALL
    other = messages.count_message(messages.Kind.PLAIN_VECTOR_REQUEST, bytes(32), 6)
    assert refused("masked", other) is Reason.WRONG_TASK
    assert party.masked(vector) == party.masked(vector)

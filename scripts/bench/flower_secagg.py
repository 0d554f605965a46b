"""Flower's own SecAgg+ with its clients called in this process: the peer of `scripts/bench/secagg.py`.

The workflow and the client mod are Flower's, unchanged; only the transport between them is ours, and is not
counted. Flower masks floats that it quantises, so the counts go in as floats; what comes out is compared with
the mean within its quantisation.
"""

import time
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import flwr.compat.common.recorddict_compat as compat
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from numpy.typing import NDArray

from fa_core.flower.transport import identify

_CLIP = 64.0


class _Proxy:
    """What the workflow asks of a client's proxy."""

    def __init__(self, node: int) -> None:
        self.node_id = node
        self.cid = str(node)


class _Manager:
    """What the workflow asks of a client manager."""

    def __init__(self, n: int) -> None:
        self._n = n

    def num_available(self) -> int:
        """How many clients there are."""
        return self._n


class _Strategy(FedAvg):  # type: ignore[misc]
    """Everybody, every round; keeps the aggregate."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self._n = n
        self.mean: NDArray[np.float32] | None = None

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> list[Any]:
        """All clients with no instructions."""
        return [(_Proxy(node), FitIns(parameters, {})) for node in range(1, self._n + 1)]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> tuple[None, dict[str, Any]]:
        """The workflow has put the weighted mean into every result."""
        (self.mean,) = parameters_to_ndarrays(results[0][1].parameters)
        return None, {}


class _Grid:
    """Calls the client mod for each message, and adds up the CPU that this takes."""

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self.clients = self.carrying = 0.0
        self._rows = rows
        self._contexts = {node: _context(node) for node in range(1, len(rows) + 1)}

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Each client's reply."""
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            start = time.process_time()
            arrived = deepcopy(message)  # the mod changes it, and the workflow sends one content to all
            begin = time.process_time()
            reply = secaggplus_mod(arrived, self._contexts[node], self._train)
            self.clients += time.process_time() - begin
            self.carrying += begin - start
            reply.metadata.__dict__["_src_node_id"] = node
            replies.append(reply)
        return replies

    def _train(self, message: Message, context: Context) -> Message:
        row = self._rows[message.metadata.dst_node_id - 1].astype(np.float32)
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([row]), 1, {})
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)


def _context(node: int) -> Context:
    return Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})


def run(rows: NDArray[np.int64], shares: int) -> tuple[float, float]:
    """One round with each row as a client's vector: CPU seconds of (the server, one client)."""
    identify()
    strategy, grid = _Strategy(len(rows)), _Grid(rows)
    context = LegacyContext(_context(0), strategy=strategy, client_manager=_Manager(len(rows)))
    context.state["config"] = ConfigRecord({"current_round": 1})
    context.state["parameters"] = ArrayRecord([np.zeros(rows.shape[1], dtype=np.float32)])
    workflow = SecAggPlusWorkflow(
        num_shares=shares, reconstruction_threshold=0.6, max_weight=1.0, clipping_range=_CLIP
    )
    begin = time.process_time()
    workflow(grid, context)
    total = time.process_time() - begin
    assert strategy.mean is not None, "the peer's round failed"
    assert np.allclose(strategy.mean, rows.mean(axis=0), atol=0.01)
    return total - grid.clients - grid.carrying, grid.clients / len(rows)

"""Everything of Flower's API that we touch, and our in-process Grid.

Flower carries opaque bytes here and knows nothing of the protocol. A `NodeMessage` goes to one node at one
stage of one release; it holds one part for each device behind that node (a node is one device, or a hub of
many; `slot` numbers the devices behind a node from 0). A device that did not answer has an empty part:
whether it declined, failed or was off cannot be distinguished.

Flower's API changes monthly, so nothing else imports `flwr` but `fa_core.flower.superlink`, which
holds what an operator asks of a deployed one, and `fa_core.flower.supernode`, which starts a node.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

# Flower reads its environment when it is imported, hence the order.
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.task_identity import TaskIdentity

from fa_core.errors import RoundFailed
from fa_core.flower.loopback import direct

__all__ = [
    "ClientApp",
    "ConfigRecord",
    "Context",
    "Grid",
    "LocalGrid",
    "Message",
    "NodeMessage",
    "RecordDict",
    "ServerApp",
]

direct()

MAX_TTL = 12 * 3600.0
"""Flower's own longest life of a message, in seconds."""

FAILURES, PAUSE = 10, 1.0
"""How often a call is retried when the SuperLink answers HTTP 5xx, and after how many seconds."""

HTTP_SERVER_ERROR = 500
RECORD = "letter"
PARTITION = "partition-id"
"""The key of a node's configuration in which Flower's simulation numbers its nodes from 0."""


@dataclass(frozen=True, slots=True)
class NodeMessage:
    """Opaque bytes to or from the devices of one node.

    Attributes:
        node: Flower's id of the node.
        stage: the action of `query.<stage>`.
        release: hex id of the release that the round is for.
        parts: slot of a device behind the node -> its request or reply; b"" is no answer. A request with
            no parts but `everyone` is for every device behind the node.
        everyone: the request for all, b"" where `parts` says it for each.
    """

    node: int
    stage: str
    release: str
    parts: Mapping[int, bytes]
    everyone: bytes = b""


class Malformed(ValueError):
    """A Flower message that is no `NodeMessage`. Says what is wrong with its form, nothing of its content."""


def push(grid: Grid, outgoing: NodeMessage, seconds: float) -> str | None:
    """Send a message that lives for `seconds`; return its id, or None where Flower did not accept it.

    One message a call: Flower leaves out of its answer what it could not store, without saying which.
    """
    message = _message(outgoing, min(seconds, MAX_TTL))
    taken = [each for each in _retry(lambda: grid.push_messages([message])) if each]
    return str(taken[0]) if taken else None


def pull(
    grid: Grid, sent: Mapping[str, int], stage: str, release: str
) -> Iterator[tuple[str, NodeMessage | None]]:
    """Yield (message id, reply) for replies that are there now; None for an error or a malformed reply.

    A reply that comes from another node, or belongs to another stage or release than it was asked for,
    is malformed. Replies to messages that are not in `sent` are passed over.
    """
    for message in _retry(lambda: grid.pull_messages(list(sent))):
        message_id = str(message.metadata.reply_to_message_id)
        if message_id in sent:
            yield message_id, _checked(message, sent[message_id], stage, release)


def _retry(call: Callable[[], Iterable[Any]]) -> list[Any]:
    """Return what a call to the SuperLink returns; retry where it fails on its side (HTTP 5xx).

    Flower retries only where there is no connection. A message that was accepted all the same goes out twice,
    which costs nothing: a device answers the same request with the same bytes. Raises RoundFailed where
    every try fails.
    """
    for _ in range(FAILURES):
        try:
            return list(call())
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", 0)
            if status < HTTP_SERVER_ERROR:
                raise
        time.sleep(PAUSE)
    raise RoundFailed(
        f"the SuperLink failed {FAILURES} times in a row (HTTP {status}), and its log says why; it takes no "
        "message from a clock that is behind its own; nothing was released"
    )


def _checked(message: Message, node: int, stage: str, release: str) -> NodeMessage | None:
    if message.has_error():
        return None
    try:
        found = read(message)
    except Malformed:
        return None
    expected = (node, stage, release)
    return found if (int(message.metadata.src_node_id), found.stage, found.release) == expected else None


def read(message: Message) -> NodeMessage:
    """Return what a Flower message holds, with the node that it goes to or comes from. Raises Malformed."""
    metadata = message.metadata
    category, _, stage = str(metadata.message_type).partition(".")
    if category != "query" or not message.has_content() or list(message.content) != [RECORD]:
        raise Malformed("not a message of the protocol")
    record = message.content[RECORD]
    if not isinstance(record, ConfigRecord) or set(record) != {"slots", "parts", "everyone"}:
        raise Malformed("a message has slots, parts and everyone")
    slots, parts, everyone = record["slots"], record["parts"], record["everyone"]
    if not (_list_of(slots, int) and _list_of(parts, bytes) and isinstance(everyone, bytes)):
        raise Malformed("a message holds integers and bytes")
    if len(slots) != len(parts) or len(set(slots)) != len(slots) or any(slot < 0 for slot in slots):
        raise Malformed("a message has one part for each of its slots, and no slot twice")
    node = int(metadata.dst_node_id if metadata.reply_to_message_id == "" else metadata.src_node_id)
    return NodeMessage(node, stage, str(metadata.group_id), dict(zip(slots, parts, strict=True)), everyone)


def reply(message: Message, parts: Mapping[int, bytes]) -> Message:
    """Return the reply to `message` that holds `parts`."""
    return Message(_content(parts, b""), reply_to=message)


def no_reply(message: Message) -> Message:
    """Return the fixed reply that says only that there is none, whatever the reason."""
    return Message(Error(code=0, reason="unanswered"), reply_to=message)


def _message(outgoing: NodeMessage, ttl: float) -> Message:
    return Message(
        _content(outgoing.parts, outgoing.everyone),
        dst_node_id=outgoing.node,
        message_type=f"query.{outgoing.stage}",
        group_id=outgoing.release,
        ttl=ttl,
    )


def _content(parts: Mapping[int, bytes], everyone: bytes) -> RecordDict:
    record = ConfigRecord({"slots": list(parts), "parts": list(parts.values()), "everyone": everyone})
    return RecordDict({RECORD: record})


def _list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


class LocalGrid(Grid):  # type: ignore[misc]
    """A Grid whose nodes are numbered from 1 and run one ClientApp in this process, when they are asked.

    Messages wait until replies are pulled; one pull runs nodes for about `slice_seconds` and returns their
    replies, so that the caller can show progress and keep a deadline. An exception of the app becomes
    Flower's error reply without its text, as a careful SuperNode would make it.
    """

    def __init__(self, app: ClientApp, nodes: int, slice_seconds: float = 0.25) -> None:
        self._app = app
        self._contexts = {
            number + 1: context_of(number + 1, {PARTITION: number, "num-partitions": nodes})
            for number in range(nodes)
        }
        self._slice = slice_seconds
        self._waiting: dict[str, Message] = {}
        self._sent = 0
        identify()

    def set_run(self, run: Any) -> None:
        """Do nothing: a local grid has one run."""

    @property
    def run(self) -> None:
        """A local grid has no record of its run."""
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Return `Message(...)`; Flower deprecates this, its base class demands it."""
        return Message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the nodes, 1 … n."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages until their replies are pulled; return their ids."""
        ids = []
        for message in messages:
            self._sent += 1
            message_id = str(self._sent)
            message.metadata.__dict__["_message_id"] = message_id
            self._waiting[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Run nodes for about a slice of time and return their replies, in the order of `message_ids`."""
        end = time.monotonic() + self._slice
        replies = []
        for message_id in message_ids:
            message = self._waiting.pop(message_id, None)
            if message is not None:
                replies.append(self._answer(message))
                if time.monotonic() >= end:
                    break
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, then pull until every node has been run or `timeout` seconds are over."""
        waiting = list(self.push_messages(messages))
        end = time.monotonic() + (MAX_TTL if timeout is None else timeout)
        replies: list[Message] = []
        while len(replies) < len(waiting) and time.monotonic() < end:
            replies += self.pull_messages(waiting)
        return replies

    def _answer(self, message: Message) -> Message:
        context = self._contexts.get(int(message.metadata.dst_node_id))
        if context is None:
            return no_reply(message)
        try:
            return self._app(message, context)
        except Exception:  # noqa: BLE001 - a node may break in any way; its text must go no further
            return no_reply(message)


def identify() -> None:
    """Give this process the identity that Flower's `Message` wants, where no engine has given it one."""
    try:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id  # noqa: B018 - asking raises
    except RuntimeError:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1


def context_of(node: int, config: Mapping[str, int]) -> Context:
    """Return the Context of a node without a past, with this node configuration."""
    return Context(run_id=1, node_id=node, node_config=dict(config), state=RecordDict(), run_config={})


def server_app(main: Callable[[Grid, Mapping[str, Any]], None]) -> ServerApp:
    """Return Flower's ServerApp that calls `main(grid, run configuration)`."""
    app = ServerApp()

    def entry(grid: Grid, context: Context) -> None:
        main(grid, dict(context.run_config))

    app.main()(entry)
    return app


def client_app(answer: Callable[[Message, Mapping[str, Any]], Message], stages: Sequence[str]) -> ClientApp:
    """Return Flower's ClientApp that hands every `query.<stage>` to `answer(message, node configuration)`.

    Whatever `answer` raises leaves as the fixed `no_reply`: Flower would send the exception's text.
    """
    app = ClientApp()

    def handler(message: Message, context: Context) -> Message:
        try:
            return answer(message, dict(context.node_config))
        except Exception:  # noqa: BLE001 - only the fact may leave the node, never the text
            return no_reply(message)

    for stage in stages:
        app.query(stage)(handler)
    return app


def run_simulation(server: ServerApp, client: ClientApp, nodes: int) -> None:
    """Run a ServerApp over Flower's simulation engine (Ray).

    All nodes share one worker process, since a device keeps its keys in memory from stage to stage.
    `client` is pickled into it.
    """
    from flwr.simulation import run_simulation as flower_simulation

    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    flower_simulation(
        server_app=server,
        client_app=client,
        num_supernodes=nodes,
        backend_config={
            "init_args": {"num_cpus": 1, "include_dashboard": False, "log_to_driver": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )

"""Flower's SuperLink: how an operator and an analyst talk to one, and how a federation runs it.

`python -m fa_core.flower.superlink` is Flower's own, with its own arguments and a longer database timeout.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import fa_core.flower.transport  # noqa: F401 - it settles Flower's environment before Flower is imported
from fa_core.errors import BadInput

BUSY_SECONDS = 120

QUIET_SECONDS = 60.0
"""How long to follow a silent log: a host that vanished looks the same as a stage that takes long."""


class Unanswered(BadInput):
    """No SuperLink answers, or one with another certificate, or one that fails."""


@dataclass(frozen=True, slots=True)
class Node:
    """A SuperNode as the SuperLink lists it: `status` is registered, online, offline or unregistered, and
    `activated` when it last signed on (ISO 8601), "" for never."""

    id: int
    name: str
    status: str
    activated: str
    public_key: bytes


@dataclass(frozen=True, slots=True)
class RunState:
    """How far Flower has a run: `status` is pending, starting, running or finished, `how` completed, failed
    or stopped once it is finished."""

    status: str
    how: str


class SuperLink:
    """The operator's and the analyst's connection to a SuperLink. Close it.

    Every call raises Unanswered, in one sentence, where the SuperLink is not there or not the one whose
    certificate `authority` signed, and BadInput where it refuses.
    """

    def __init__(self, address: str, authority: bytes) -> None:
        from flwr.cli.cli_client_interceptor import CliClientHttpInterceptor
        from flwr.supercore.control import ControlHttpClient
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

        self._address = address
        version = RuntimeVersionHttpInterceptor(component_name="flwr CLI")
        interceptors = (CliClientHttpInterceptor(), version, _StreamTimeout())
        self._client = ControlHttpClient.from_server_address(
            server_address=address, insecure=False, root_certificates=authority, interceptors=interceptors
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def nodes(self) -> list[Node]:
        """Return the SuperNodes that were ever registered and are not unregistered."""
        from flwr.proto.control_pb2 import ListNodesRequest

        with self._errors_as_sentences():
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [
            Node(
                int(each.node_id),
                str(each.name),
                str(each.status),
                str(each.last_activated_at),
                bytes(each.public_key),
            )
            for each in found
            if each.status != "unregistered"
        ]

    def register(self, name: str, public_key: bytes) -> None:
        """Admit a SuperNode by its public key, in PEM."""
        from flwr.proto.control_pb2 import RegisterNodeRequest

        with self._errors_as_sentences():
            self._client.RegisterNode(RegisterNodeRequest(public_key=public_key, name=name))

    def start(self, bundle: Mapping[str, bytes], config: Mapping[str, str | int | float | bool]) -> int:
        """Start a run of the app whose files are `bundle`, with this run configuration; return its number."""
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        data = bundle_bytes(bundle)
        fab = Fab(hashlib.sha256(data).hexdigest(), data, {})
        request = StartRunRequest(
            fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(config)), federation=""
        )
        with self._errors_as_sentences():
            return int(self._client.StartRun(request).run_id)

    def run(self, number: int) -> RunState | None:
        """Return how far a run is, None where there is no such run."""
        from flwr.proto.control_pb2 import ListRunsRequest

        with self._errors_as_sentences():
            found = self._client.ListRuns(ListRunsRequest(run_id=number)).run_dict
        if number not in found:
            return None
        status = found[number].status
        return RunState(str(status.status), str(status.sub_status))

    def log(self, run: int, after: float) -> Iterator[tuple[float, str]]:
        """Yield (time, text) of what a run's ServerApp has written since `after`.

        Until the run has ended, or nothing was written for `QUIET_SECONDS`: `run` says which.
        """
        import httpx
        from flwr.proto.control_pb2 import StreamLogsRequest

        with self._errors_as_sentences(), suppress(httpx.ReadTimeout):
            for said in self._client.StreamLogs(StreamLogsRequest(run_id=run, after_timestamp=after)):
                yield float(said.latest_timestamp), str(said.log_output)

    @contextmanager
    def _errors_as_sentences(self) -> Iterator[None]:
        """Translate what a call may raise into our errors, in one sentence."""
        import httpx

        try:
            yield
        except httpx.HTTPStatusError as error:
            sentence = f"the SuperLink at {self._address} refuses: {_refusal(error.response)}"
            raise (Unanswered if error.response.is_server_error else BadInput)(sentence) from None
        except httpx.TransportError as error:
            why = "its certificate is not signed by this federation's authority"
            if "CERTIFICATE" not in str(error).upper():
                why = f"{type(error).__name__}: {error}"
            raise Unanswered(f"no SuperLink of this federation answers at {self._address} ({why})") from None


class _StreamTimeout:
    """Gives a stream the read timeout that Flower leaves out."""

    def intercept(self, context: Any, call_next: Any) -> Any:
        """Pass a call on. Flower takes the timeout away once a stream has begun, in this same place."""
        response = call_next(context)
        seconds = context.request.extensions["timeout"]
        seconds["read"] = seconds["read"] or QUIET_SECONDS
        return response


def bundle_bytes(files: Mapping[str, bytes]) -> bytes:
    """Return Flower's app bundle of these files (path -> content, with a pyproject.toml)."""
    from flwr.cli.build import build_fab_from_files

    return bytes(build_fab_from_files(files)[0])


def _refusal(response: Any) -> str:
    try:
        said = response.json()
        return str(said.get("detail") or said.get("message") or said)
    except (ValueError, AttributeError):
        return f"HTTP {response.status_code}"


def run_superlink() -> None:
    """Run Flower's SuperLink with the database timeout that many busy nodes need.

    Flower's waits 5 seconds for a lock of its database, then answers 500, at which a SuperExec ends and its
    ServerApp with it: hubs of 500 devices push 12 MB each.
    """
    from flwr.supercore import sql_mixin
    from flwr.superlink.cli import flower_superlink

    settings = dict(sql_mixin.SQLITE_PRAGMAS) | {"busy_timeout": str(BUSY_SECONDS * 1000)}
    sql_mixin.SQLITE_PRAGMAS = tuple(settings.items())
    flower_superlink()


if __name__ == "__main__":
    run_superlink()

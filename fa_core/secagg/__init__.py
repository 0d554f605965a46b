"""Secure aggregation: the server learns the sum of the devices' vectors, and nothing else of any of them.

SecAgg+ (Bell, Bonawitz, Gascón, Lepoint and Raykova, 2020) with a signed roster and a signed survivor
bitmap, as pure state machines: bytes in, bytes out, no sockets, no clock. docs/protocol.md specifies it
byte by byte, docs/threat-model.md says what it stops and what remains.

One round of five devices, one of which never answers `masked`:

    >>> import tempfile, numpy as np
    >>> from fractions import Fraction
    >>> from pathlib import Path
    >>> from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    >>> from fa_core.trust.enrolment import Authority
    >>> from fa_core.secagg import DeviceParty, Server, Stage, Task, Trust
    >>> from fa_core.secagg.identity import population_id
    >>> from fa_core.trust.witness import Witness
    >>> authority = Authority.generate()
    >>> journal = tempfile.TemporaryDirectory()
    >>> class Uncharged(Witness):              # this example has no ledger; a witness insists on its charge
    ...     def _require_charge(self, task, data): ...
    >>> witness = Uncharged(Ed25519PrivateKey.generate(), authority.public_key, Path(journal.name))
    >>> trust = Trust(authority.public_key, witness.public_key, min_devices=3)
    >>> task = Task(plan_hash=bytes(32), release=bytes(16), attempt=0, length=3, bits=32,
    ...             dropout=Fraction(1, 5), corrupt=Fraction(0), min_devices=4,
    ...             population=population_id("a fleet"))
    >>> def contribute(n):                     # n: devices on the signed roster; add the noise share here
    ...     return np.array([1, -2, 3], dtype=np.int64)
    >>> devices = [authority.enrol("a fleet") for _ in range(5)]
    >>> parties = {i: DeviceParty(task, each, trust, contribute) for i, each in enumerate(devices)}
    >>> server = Server(task, authority.public_key, witness, nodes=parties)
    >>> while server.stage is not None:        # RoundFailure ends the round without a sum
    ...     stage, requests = server.stage, server.requests()
    ...     replies = {}
    ...     for node, request in requests.items():
    ...         if (node, stage) != (3, Stage.MASKED):
    ...             replies[node] = getattr(parties[node], stage.value)(request)   # may raise Refusal
    ...     server.receive(replies)
    >>> server.result.total, server.result.joined, server.result.counted
    (array([ 4, -8, 12]), 5, (0, 1, 2, 4))
    >>> journal.cleanup()

`requests()` makes each request when it is looked up, so a driver can send a large cohort piece by piece;
`server.quorum` says how many replies the stage needs at least. `fa_core.secagg.plain` has the same two
classes without masks (`plain.Server` takes no witness), with the stages `join` and `masked` only.
"""

from fa_core.secagg.device import DeviceParty
from fa_core.secagg.identity import DeviceIdentity, Trust
from fa_core.secagg.parameters import Parameters, choose, smallest_cohort
from fa_core.secagg.server import Result, Server, Witness
from fa_core.secagg.task import IN_ORDER, MAX_ATTEMPTS, Reason, Refusal, RoundFailure, Stage, Task

__all__ = [
    "IN_ORDER",
    "MAX_ATTEMPTS",
    "DeviceIdentity",
    "DeviceParty",
    "Parameters",
    "Reason",
    "Refusal",
    "Result",
    "RoundFailure",
    "Server",
    "Stage",
    "Task",
    "Trust",
    "Witness",
    "choose",
    "smallest_cohort",
]

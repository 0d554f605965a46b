"""The witness's part in rollouts: it grants stages, and keeps when they began, were held, and ended.

Each stage is granted once, after the gate was computed again from logged releases (`fa_core.trust.grants`),
and by the witness's own clock: it registers when a rollout starts, and a stage begins when it is granted. A
stage that was granted is signed again, for another lease, without its evidence: it was decided.

Of a rollout that is held, or that has ended, it signs nothing. It knows of both because they are reported to
it: a log alone cannot prove that neither was logged after the entries that the witness was handed.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.errors import BadInput, Refused
from fa_core.trust.grants import Evidence, Grant, Granted, GrantRequest, KnownRound, Recompute, proven
from fa_core.trust.journal import Journal

_HASH_SIZE = 32
_NUMBERED_SIZE = _HASH_SIZE + 2


class Stages:
    """The stages of rollouts, over the witness's journal.

    `log` is the log's public Ed25519 key, 32 bytes; without it nothing is granted. `clock` gives the time,
    UTC. `rounds` returns every round for which the witness signed a roster. `recompute` computes a gate.
    """

    def __init__(
        self,
        key: Ed25519PrivateKey,
        journal: Journal,
        log: bytes | None,
        clock: Callable[[], datetime],
        rounds: Callable[[], Sequence[KnownRound]],
        recompute: Recompute,
    ) -> None:
        self._key = key
        self._journal = journal
        self._log = log
        self._clock = clock
        self._rounds = rounds
        self.recompute = recompute

    def grant(self, request: bytes) -> bytes:
        """Return the grant, `Grant.encode`, of a rollout's stage. Refused where no gate says so.

        A stage that was granted is signed again from now on, without its evidence. While a rollout is held,
        and after its end or its last day, nothing is granted.
        """
        if self._log is None:
            raise Refused("the witness was not given the key of a transparency log, so it grants no stage")
        try:
            asked = GrantRequest.decode(request)
        except BadInput as error:
            raise Refused(str(error)) from None
        stage = asked.asked
        self._require_going(stage.rollout)
        kept = self._granted(stage.rollout, stage.state, stage.stage) or self._decide(asked, self._log)
        if kept.name != stage.name:
            raise Refused("the witness granted this stage of the rollout for another share of the devices")
        if kept.term is None:
            raise Refused(
                "the witness granted this stage when grants said no time, and does not sign it again"
            )
        now = self._now()
        if now >= kept.term.end:
            raise Refused(f"the rollout expired at {kept.term.end:%Y-%m-%d %H:%M} UTC")
        return Grant.sign(stage, now, kept.term.until(stage.state, now), self._key).encode()

    def begin(self, request: bytes) -> bytes:
        """Return when a stage of a rollout began, by this witness's clock: seconds since 1970, 8 bytes.

        Shadow begins at the first call, which is kept: a rollout starts once, whatever is logged later. A
        live stage began when it was granted. Refused for one that was not.

        Args:
            request: SHA-256 of the rollout's document, 32 bytes, and the stage, 2 bytes. Integers are
                little-endian.
        """
        rollout, stage = _numbered(request, "which stage of a rollout is meant")
        if stage == 0:
            self._require_open(rollout)
            self._journal.keep(_start(rollout), self._seconds())
        return int(self._began(rollout, stage).timestamp()).to_bytes(8, "little")

    def hold(self, request: bytes) -> bytes:
        """Keep that a rollout is held, and return b"": none of its stages is granted until it is resumed.

        The same again changes nothing, and a hold that was resumed is over whatever is reported later.

        Args:
            request: SHA-256 of its document, 32 bytes, and the hold's number, from 1, 2 bytes, little-endian.
        """
        return self._keep_numbered(request, "hold")

    def resume(self, request: bytes) -> bytes:
        """Keep that a rollout goes on after its holds up to a number, and return b"". As `hold`."""
        return self._keep_numbered(request, "resume")

    def end(self, rollout: bytes) -> bytes:
        """Keep that a rollout has ended, and return b"": from then on none of its stages is granted.

        Args:
            rollout: SHA-256 of its document, 32 bytes.
        """
        if len(rollout) != _HASH_SIZE:
            raise Refused("the witness cannot read which rollout has ended")
        with self._journal.lock():
            self._journal.keep(_end(rollout), self._seconds())
        return b""

    def _decide(self, asked: GrantRequest, log: bytes) -> Granted:
        """Compute a stage's gate again, and keep that it is granted. Refused where it does not say so."""
        stage, now = asked.asked, self._now()
        began = self._began(stage.rollout, stage.stage - (stage.state == "live"))
        earlier = None if stage.before is None else self._granted(stage.rollout, *stage.before)
        entries = proven(asked, log, self._key.public_key().public_bytes_raw())
        term = self.recompute(
            Evidence(
                asked=stage,
                claim=asked.claim,
                entries=entries,
                bodies=asked.bodies,
                earlier=b"" if earlier is None else earlier.claim,
                began=began,
                used=self._used(stage.rollout),
                rounds=self._rounds(),
                now=now,
            )
        )
        made = Granted(stage.name, asked.claim, now, term)
        with self._journal.lock():
            self._require_going(stage.rollout)
            name = _grant(stage.rollout, stage.state, stage.stage)
            return Granted.decode(self._journal.keep(name, made.encode()))

    def _keep_numbered(self, request: bytes, what: str) -> bytes:
        rollout, number = _numbered(request, f"which {what} of a rollout is meant")
        with self._journal.lock():
            self._journal.keep(f"{rollout.hex()}-{what}-{number}", b"%d " % number + self._seconds())
        return b""

    def _now(self) -> datetime:
        return self._clock().replace(microsecond=0)

    def _seconds(self) -> bytes:
        return b"%d" % int(self._now().timestamp())

    def _require_going(self, rollout: bytes) -> None:
        self._require_open(rollout)
        if self._last_number(rollout, "hold") > self._last_number(rollout, "resume"):
            raise Refused("an operator holds the rollout, so the witness grants nothing of it")

    def _require_open(self, rollout: bytes) -> None:
        if self._journal.read(_end(rollout)) is not None:
            raise Refused("the witness grants nothing of a rollout that has ended")

    def _last_number(self, rollout: bytes, what: str) -> int:
        """Return the number of the last hold, or resume, that was reported; 0 before the first."""
        kept = self._journal.begin_with(f"{rollout.hex()}-{what}-")
        return max((int(each.split()[0]) for each in kept), default=0)

    def _granted(self, rollout: bytes, state: str, stage: int) -> Granted | None:
        kept = self._journal.read(_grant(rollout, state, stage))
        return None if kept is None else Granted.decode(kept)

    def _began(self, rollout: bytes, stage: int) -> datetime:
        """Return when a stage began. Refused where this witness neither registered nor granted it."""
        if stage == 0:
            start = self._journal.read(_start(rollout))
            if start is None:
                raise Refused("the witness has not registered the start of this rollout, so it grants none")
            return datetime.fromtimestamp(int(start), UTC)
        granted = self._granted(rollout, "live", stage)
        if granted is None:
            raise Refused("the witness grants no stage of a rollout before the one that comes before it")
        return granted.at

    def _used(self, rollout: bytes) -> frozenset[str]:
        """Return the releases on which grants of a rollout rest."""
        kept = self._journal.begin_with(f"{rollout.hex()}-grant-")
        return frozenset().union(*(Granted.decode(each).releases for each in kept))


def _numbered(request: bytes, what: str) -> tuple[bytes, int]:
    """Return the rollout and the number that a request names. Refused for one of another size."""
    if len(request) != _NUMBERED_SIZE:
        raise Refused(f"the witness cannot read {what}")
    return request[:_HASH_SIZE], int.from_bytes(request[_HASH_SIZE:], "little")


def _start(rollout: bytes) -> str:
    return f"{rollout.hex()}-start"


def _end(rollout: bytes) -> str:
    return f"{rollout.hex()}-end"


def _grant(rollout: bytes, state: str, stage: int) -> str:
    return f"{rollout.hex()}-grant-{state}-{stage}"

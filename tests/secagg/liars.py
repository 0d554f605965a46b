"""Devices that lie where shares are dealt and complained of, and devices that believe them."""

from dataclasses import replace
from secrets import token_bytes

import numpy as np

from fa_core.secagg import DeviceParty, keys, messages, shamir
from fa_core.secagg.complaint import dealt_message
from fa_core.secagg.messages import NO_COMPLAINT, SEALED_SIZE, Kind
from fa_core.secagg.opened_secret import open_secret


class Garbage(DeviceParty):
    """Signs boxes that hold nothing."""

    __slots__ = ()

    def _shares(self, request: bytes) -> bytes:
        reply = super()._shares(request)
        assert self._cohort is not None
        dealt = messages.read_shares_reply(self._task.session, reply, self._cohort.parameters.neighbours)
        sealed = b"".join(self._box(slot) for slot in range(len(dealt.sealed)))
        signature = self._identity.key.sign(dealt_message(self._cohort.roster_hash, dealt.commitment, sealed))
        boxes = np.frombuffer(sealed, dtype=np.uint8).reshape(dealt.sealed.shape)
        return messages.shares_reply(self._task.session, replace(dealt, signature=signature, sealed=boxes))

    def _box(self, slot: int) -> bytes:
        return token_bytes(SEALED_SIZE)


class NoResidues(Garbage):
    """Seals numbers that are no shares, in boxes that open."""

    __slots__ = ()

    def _box(self, slot: int) -> bytes:
        assert self._keys is not None
        assert self._cohort is not None
        peer, own = self._cohort.records[slot], self._keys.record.device
        secret = keys.agree(self._keys.share, peer.share_key)
        plain = shamir.PRIME.to_bytes(4, "little") * (2 * shamir.LIMBS)
        return keys.seal(keys.share_key(secret, self._task.session, own, peer.device), plain)


class Trusting(DeviceParty):
    """Never complains: the control of everything here."""

    __slots__ = ()

    def _confirm(self, request: bytes) -> bytes:
        super()._confirm(request)
        self._complained = False
        return messages.count_message(Kind.CONFIRM_REPLY, self._task.session, NO_COMPLAINT)


class Gullible(DeviceParty):
    """Opens the secret it shares with whomever it complained of, and looks at no evidence."""

    __slots__ = ()

    def _dispute(self, request: bytes) -> bytes:
        assert self._keys is not None
        assert self._cohort is not None
        assert self._received is not None
        accused = self._cohort.records[self._received.complaint]
        opening = open_secret(self._keys.share, accused.share_key, self._cohort.roster_hash)
        return messages.dispute_reply(self._task.session, opening)


class FalseAccuser(Gullible):
    """Complains of a neighbour whose box opens, and opens the secret truly."""

    __slots__ = ()

    def _confirm(self, request: bytes) -> bytes:
        super()._confirm(request)
        assert self._received is not None
        self._received, self._complained = replace(self._received, complaint=0), True
        return messages.count_message(Kind.CONFIRM_REPLY, self._task.session, 0)


class Swindler(FalseAccuser):
    """Complains of a neighbour whose box opens, and shows a secret that is another one."""

    __slots__ = ()

    def _dispute(self, request: bytes) -> bytes:
        reply = super()._dispute(request)
        return reply[:36] + bytes([reply[36] ^ 1]) + reply[37:]

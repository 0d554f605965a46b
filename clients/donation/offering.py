"""Sending a sample that its owner has seen and agreed to, and withdrawing it. Nothing else sends audio.

The token and the journal's entry are written before the first byte leaves, so whatever may have left can be
withdrawn. The audio itself is not written: a device that is killed while it sends has not kept it.
"""

import json
import secrets
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

from clients.device.consent import allows
from clients.device.store import Store
from clients.donation.records import Donation, Donations, State
from fa_core.donation.exchange import VaultSilent
from fa_core.donation.recording import Recording
from fa_core.donation.refusal import RefusedByVault
from fa_core.donation.request import PURPOSE, DonationRequest
from fa_core.donation.sealing import TOKEN_SIZE, seal
from fa_core.donation.statement import Said, Statement
from fa_core.errors import BadInput, Refused

Post = Callable[[str, bytes], bytes]
"""Posts a body to a target of the vault and returns the answer; raises RefusedByVault or VaultSilent."""


def check(store: Store, request: DonationRequest, now: datetime) -> None:
    """Raise Refused where nothing may be offered: no consent, outside the window, or enough was sent."""
    if not allows(store.grants(), PURPOSE, now):
        raise Refused("nothing can leave: there is no consent to debug (`fa device consent debug --days 30`)")
    if not request.open_at(now):
        window = f"{request.first:%Y-%m-%d %H:%M} to {request.end:%Y-%m-%d %H:%M} UTC"
        raise Refused(f"nothing can leave: samples are asked for from {window}")
    if Donations(store).under(request) >= request.samples:
        raise Refused(f"nothing more can leave: {request.samples} samples were sent, all that are asked for")


def offer(
    store: Store, request: DonationRequest, recording: Recording, post: Post, clock: Callable[[], datetime]
) -> Donation:
    """Seal a recording, journal that it is offered, send it, and return the donation that the vault keeps.

    The caller has shown the recording to the owner, who agreed.

    Raises:
        Refused: as `check`, or the vault refuses.
        VaultSilent: it does not answer. The sample may have arrived; it can be withdrawn.
    """
    now, token = clock(), secrets.token_bytes(TOKEN_SIZE)
    sealed = seal(recording, request, token)
    donation = Donation(
        sealed.sample, token, request.hash, request.area, request.vault, request.vault_key, now, None, "sent"
    )
    with store.transaction(now):
        check(store, request, now)
        Donations(store).add(donation)
        names = " and ".join(each.name for each in request.reviewers)
        store.append(now, "donation_offered", {**_about(donation), "reviewers": names})
    try:
        answer = _twice(post, "/v1/samples", sealed.encode())
    except RefusedByVault as refused:
        _set(store, donation, "refused", None, clock())
        raise Refused(f"the vault refuses: {refused.refusal.words}") from None
    except VaultSilent as silent:
        name = donation.sample.hex()
        raise VaultSilent(f"{silent}. Sample {name} may have arrived; `fa device donate withdraw`") from None
    said = _statement(answer, donation, "kept")
    if said.until is None or said.until > _last_day(request, clock()):
        raise Refused("the vault says that it keeps the sample longer than the request allows; withdraw it")
    with store.transaction(now := clock()):
        Donations(store).set(donation.sample, "kept", said.until)
        store.append(now, "donated", {**_about(donation), "until": said.until.isoformat()})
    return Donations(store).find(donation.sample.hex())


def withdraw(store: Store, donation: Donation, post: Post, clock: Callable[[], datetime]) -> Statement:
    """Have the vault destroy a sample; verify and journal its signed statement, and return it.

    Raises Refused where the vault refuses, VaultSilent where it does not answer: then try again.
    """
    try:
        answer = _twice(post, "/v1/withdrawals", donation.request + donation.token)
    except RefusedByVault as refused:
        raise Refused(f"the vault refuses: {refused.refusal.words}") from None
    said = _statement(answer, donation, "destroyed")
    signature = json.loads(answer)["signature"]
    with store.transaction(now := clock()):
        Donations(store).set(donation.sample, "withdrawn", donation.until)
        body = {"statement": said.document().decode(), "signature": signature, "reads": said.reads}
        store.append(now, "donation_withdrawn", {**_about(donation), **body})
    return said


def _about(donation: Donation) -> dict[str, str]:
    return {
        "sample": donation.sample.hex(),
        "area": donation.area,
        "vault": donation.vault,
        "request": donation.request.hex(),
    }


def _set(store: Store, donation: Donation, state: State, until: date | None, now: datetime) -> None:
    with store.transaction(now):
        Donations(store).set(donation.sample, state, until)


def _twice(post: Post, target: str, body: bytes) -> bytes:
    """Post, and once more where no answer came: the vault takes the same bytes again."""
    try:
        return post(target, body)
    except VaultSilent:
        return post(target, body)


def _statement(answer: bytes, donation: Donation, said: Said) -> Statement:
    """Return the vault's statement about this very sample. Raises Refused for anything else."""
    try:
        found = Statement.read(answer, donation.vault_key)
    except BadInput as error:
        raise Refused(f"{error}; `fa device donate withdraw` can be tried") from None
    if (found.said, found.sample, found.request) != (said, donation.sample, donation.request):
        raise Refused(
            "the vault's statement is about another sample; `fa device donate withdraw` can be tried"
        )
    return found


def _last_day(request: DonationRequest, now: datetime) -> date:
    # A day of grace: the vault's clock may be past a midnight that this one has yet to see.
    return now.astimezone(UTC).date() + timedelta(days=request.retention_days + 1)

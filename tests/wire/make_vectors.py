"""Makes the published invitation: `python -m tests.wire.make_vectors` writes it into tests/vectors."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fa_core.secagg.identity import population_id
from fa_core.secagg.messages import read_join_request
from fa_core.trust.enrolment import Authority
from fa_core.wire.invitation import encode, fields_of
from tests.device.setup import NOW, POPULATION, World, plan_of, raw

FILE = Path(__file__).parent.parent / "vectors" / "invitation.json"


def vector() -> dict[str, Any]:
    """Return an invitation to the second release of a plan, with the keys under which it holds."""
    plan, log, witness, authority = (
        Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())
        for name in ("plan", "log", "witness", "authority")
    )
    world = World(Path("unused"), plan, log, witness, Authority(authority))
    world.invite(plan_of(), bytes(16), NOW, NOW)
    invitation = world.invite(plan_of(), bytes(range(16)), NOW, NOW)
    task = read_join_request(invitation.request)
    return {
        "what": "an invitation; docs/protocol.md says what each field is. Compressed otherwise it is as good",
        "keys": {
            "plan": raw(plan).hex(),
            "log": raw(log).hex(),
            "witness": raw(witness).hex(),
            "authority": raw(authority).hex(),
        },
        "population": {"name": POPULATION, "id": population_id(POPULATION).hex()},
        "witnessed": NOW.isoformat(),
        "fields": fields_of(invitation).hex(),
        "invitation": encode(invitation).hex(),
        "plan": invitation.plan.decode(),
        "charge": invitation.charge.decode(),
        "budgets": invitation.budgets.decode(),
        "checkpoint": invitation.checkpoint.decode(),
        "task": task.encode().hex(),
        "session": task.session.hex(),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(vector(), indent=1) + "\n")

"""Whatever the bytes are that a device reads from elsewhere: they are refused, or they are sound."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from clients.models import head, policy, thresholds
from clients.models.believe import RefusedModel, logged
from clients.rollout.terms import Terms
from fa_core.errors import BadInput, Refused
from fa_core.publication.artefact import ArtefactManifest
from fa_core.publication.proofs import Publication, Seen, verified
from fa_core.publication.signed import SignedDocument
from fa_core.publication.versions import older
from fa_core.trust import checkpoint
from tests.device.publishing import document
from tests.models.samples import NOW, Publisher, manifest_of, random_head, raw

MUTATIONS = 250
INFINITE, DEEP = "@infinite@", "@deep@"
HOSTILE: list[Any] = [
    INFINITE, DEEP, 10**400, -1, 2**63, 0, 1.5, True, None, "", "²", "\ud800", "9999-12-31", "1e400",
    "1/0", "9" * 5000, [], {}, [[]], {"index": INFINITE},
]  # fmt: skip
"""What stands in place of a value: the numbers as Python's JSON reads them, lone surrogates, no calendar."""

HEAD = head.encode(random_head(), encoding="int8")
MODEL = manifest_of(HEAD).document()
POLICY = b'{"rules":[{"action":"tighter_threshold","hours":[20,22],"threshold":"0.97"}]}'
THRESHOLDS = thresholds.encode("embed-2-t1", {"okay_nabu": "0.935"})


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Return the containers and keys of every value inside a JSON value."""
    keys: Any = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with some of their JSON's values replaced, or some of their bytes."""
    start = data.find(b"{")
    if start >= 0 and chance.random() < 0.8:
        with suppress(ValueError):
            value, end = json.JSONDecoder().raw_decode(data[start:].decode("latin-1"))
            container, key = chance.choice(list(places(value)))
            container[key] = chance.choice(HOSTILE)
            text = json.dumps(value, sort_keys=True, separators=(",", ":"))
            text = text.replace(f'"{INFINITE}"', "1e400").replace(f'"{DEEP}"', "[" * 9999 + "]" * 9999)
            return data[:start] + text.encode() + data[start + end :]
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed[: chance.choice([len(data), chance.randrange(len(data))])])


def read_terms(data: bytes) -> None:
    terms = Terms.from_document(data)
    assert terms.end.tzinfo is not None
    for each in (terms.models.baseline, terms.models.candidate):
        older(each.version, terms.models.floor)


def read_head(data: bytes) -> None:
    assert np.isfinite(head.decode(data).weights).all()


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    made = Publisher(tmp_path_factory.mktemp("hostile"))
    made.publish(HEAD)
    return made


@pytest.mark.parametrize(
    ("read", "sound"),
    [
        (lambda data: SignedDocument.from_entry("model", data).holds, b""),
        (ArtefactManifest.from_document, MODEL),
        (read_terms, document()),
        (read_head, HEAD),
        (thresholds.decode, THRESHOLDS),
        (policy.decode, POLICY),
    ],
    ids=["signed", "artefact", "terms", "head", "thresholds", "policy"],
)
@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")  # numbers over float32's are looked for
def test_no_other_error_comes_out_of_what_a_device_reads(
    publisher: Publisher, read: Callable[[bytes], object], sound: bytes
) -> None:
    sound, chance = sound or publisher.entries[1], random.Random(15)
    read(sound)
    refused = 0
    for _ in range(MUTATIONS):
        try:
            read(mutated(sound, chance))
        except (BadInput, Refused):
            refused += 1
    assert refused > MUTATIONS / 4


def test_no_other_error_comes_out_of_a_publication(publisher: Publisher) -> None:
    pins, sound, chance = publisher.pins(), publisher.publication(1).encode(), random.Random(15)
    logged(sound, pins, Seen(), Seen())
    for _ in range(MUTATIONS):
        changed = mutated(sound, chance)
        with pytest.raises(RefusedModel):
            logged(changed, pins, Seen(1, bytes(32)), Seen())
        with pytest.raises((BadInput, Refused)):
            verified(Publication.decode(changed), pins.log, pins.witness, Seen(1, bytes(32)))


@pytest.mark.parametrize("index", ["1e400", "-1", "1.0", "true", "9223372036854775808", '"1"'])
def test_an_index_is_a_number_that_a_database_holds(publisher: Publisher, index: str) -> None:
    data = publisher.publication(1).encode()
    with pytest.raises(BadInput):
        Publication.decode(data.replace(b'"index":1', b'"index":' + index.encode()))


def test_a_log_that_no_database_holds_is_refused(publisher: Publisher) -> None:
    sound = publisher.publication(1)
    note = checkpoint.sign(2**63, bytes(32), publisher.log)
    note += checkpoint.cosign(note, None, (), publisher.log.public_key(), publisher.witness, NOW)
    with pytest.raises(Refused, match="larger"):
        verified(Publication(note, {}, sound.entries), raw(publisher.log), raw(publisher.witness), Seen())

"""What a device believes of a rollout, and which model acts. From docs/device-protocol.md, "Rollouts"."""

import hmac
import re
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from typing import Any

from wire import (
    CENTURIES,
    Refused,
    canonical,
    extends,
    included,
    label,
    leaf_of,
    lowest,
    note_of,
    parsed,
    sha,
    verifies,
)

Json = dict[str, Any]
ENDED = ("rolled_back", "killed")
STATES = ("shadow", "live", "complete", *ENDED)
KEYS = {
    "rollout", "population", "wake_word", "sequence", "state", "stage", "share", "baseline", "candidate", "issued",
    "expires", "decision", "grant",
}  # fmt: skip
YEAR_9000 = 221_845_392_000
UNITS = {"m": 60, "h": 3600, "d": 86_400}


def whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError("not a whole number")
    return value


def words(value: Any, most: int = 10**6) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise ValueError("not a text")
    return value


def digits(value: Any, *sizes: int) -> bytes:
    found = bytes.fromhex(words(value))
    if len(found) not in sizes or found.hex() != value:
        raise ValueError("not so many bytes")
    return found


def place(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("not an index")
    return value


class File:
    """A published file. Raises ValueError where the bytes have another form."""

    def __init__(self, data: bytes) -> None:
        if len(data) > 4 * 1024 * 1024:
            raise ValueError("too long")
        body = parsed(data)
        if set(body) != {"checkpoint", "consistency", "entries"}:
            raise ValueError("other keys")
        self.note = words(body["checkpoint"]).encode()
        self.consistency = {}
        for size, proof in body["consistency"].items():
            if not re.fullmatch("0|[1-9][0-9]*", size):
                raise ValueError("not a size")
            self.consistency[place(int(size))] = [digits(each, 32) for each in proof]
        self.entries = []
        for each in body["entries"]:
            if set(each) != {"entry", "inclusion", "index"}:
                raise ValueError("other keys")
            path = [digits(one, 32) for one in each["inclusion"]]
            self.entries.append((place(each["index"]), words(each["entry"]).encode(), path))


def body_of(entry: bytes, kind: str, keys: set[str]) -> Json:
    head = f"unheard-log-1\n{kind}\n".encode()
    if not entry.startswith(head):
        raise ValueError("another kind")
    body = parsed(entry[len(head) :])
    if set(body) != keys:
        raise ValueError("other keys")
    return body  # type: ignore[no-any-return]


def manifest_of(entry: bytes) -> Json:
    found = body_of(entry, "manifest", KEYS)
    for key in ("rollout", "baseline", "candidate"):
        digits(found[key], 32)
    digits(found["decision"], 0, 32)
    grant = digits(found["grant"], 0, 64, 81)
    if len(grant) == 81 and (grant[0] != 2 or max(times_of(grant)) >= CENTURIES):
        raise ValueError("not a grant")
    for key in ("sequence", "stage", "issued", "expires"):
        whole(found[key])
    words(found["population"]), words(found["wake_word"])
    if not re.fullmatch("[0-9]{1,40}(/[0-9]{1,40})?", found["share"]):
        raise ValueError("not a share")
    share = Fraction(found["share"])
    right = {"live": 0 < share <= 1, "complete": share == 1}.get(found["state"], share == 0)
    if found["state"] not in STATES or not right or lowest(share) != found["share"]:
        raise ValueError("not possible")
    if not found["issued"] < found["expires"] < YEAR_9000:
        raise ValueError("not possible")
    return found


def times_of(grant: bytes) -> list[int]:
    return [int.from_bytes(grant[at : at + 8], "little") for at in (1, 9)]


class Document:
    """What a rollout's signed document says. Raises ValueError."""

    def __init__(self, entry: bytes) -> None:
        signed = body_of(entry, "rollout", {"document", "key", "signature"})
        data = signed["document"].encode()
        self.entry, self.hash = entry, sha(data).hex()
        self.key = digits(signed["key"], 32)
        self.signed = verifies(self.key, digits(signed["signature"], 64), b"unheard-rollout-1\n" + data)
        body = parsed(data)
        whole(body["metadata"]["revision"]), words(body["metadata"]["name"], 500)
        self.population, self.wake_word = words(body["population"], 500), words(body["wake_word"], 500)
        models = body["models"]
        self.hashes = {role: words(models[role]["sha256"], 500) for role in ("baseline", "candidate")}
        self.versions = {role: words(models[role]["version"], 500) for role in ("baseline", "candidate")}
        self.floor = words(models["floor"], 500)
        self.stages = [
            {kind: share_of(each[kind]) for kind in ("shadow", "live") if each.get(kind) is not None}
            for each in body["stages"]
        ]
        lease = re.fullmatch("([1-9][0-9]{0,5})([mhd])", words(body["lease"]))
        if lease is None:
            raise ValueError("not a lease")
        self.lease = int(lease[1]) * UNITS[lease[2]]
        last = date.fromisoformat(body["metadata"]["expires"])
        self.end = int((datetime.combine(last, time(0), UTC) + timedelta(days=1)).timestamp())


def share_of(text: Any) -> Fraction:
    if not re.fullmatch(r"[0-9]{1,40}([./][0-9]{1,40})?", words(text)) or not 0 <= Fraction(text) <= 1:
        raise ValueError("not a share")
    return Fraction(text)


def older(one: str, other: str) -> bool:
    found = [re.fullmatch(r"(.*?)([0-9]+(?:\.[0-9]+)*)", each, re.DOTALL) for each in (one, other)]
    if found[0] is None or found[1] is None or found[0][1] != found[1][1]:
        return False
    a, b = ([int(part) for part in each[2].split(".")] for each in found if each is not None)
    length = max(len(a), len(b))
    return a + [0] * (length - len(a)) < b + [0] * (length - len(b))


class Rollouts:
    """The rollouts of one wake word on one device, and what it remembers of them."""

    def __init__(self, ask: Json) -> None:
        self.pins, self.skew = ask["pins"], ask["pins"]["skew"]
        self.log, self.witness = (bytes.fromhex(ask["pins"][key]) for key in ("log", "witness"))
        self.population, self.wake_word = bytes.fromhex(ask["population"]), ask["wake_word"]
        self.invitations = ask["seen"]["size"], bytes.fromhex(ask["seen"]["root"])
        self.shipped, self.secret = ask["shipped"], bytes.fromhex(ask["secret"])
        self.held: Json | None = None
        self.cosigned: Json | None = None
        self.document: Document | None = None
        self.witnessed = 0
        self.seen = 0, b""
        self.over: set[str] = set()
        self.floors: set[str] = set()

    def take(self, data: bytes, now: int) -> None:
        """Check a published file, 1 to 9, and keep what it says. Raises Refused."""
        try:
            self._take(data, now)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            raise Refused("ROLLOUT") from None

    def _take(self, data: bytes, now: int) -> None:
        file = File(data)
        size, root, signed, witnessed = note_of(file.note, self.log, self.witness)
        self._published(file, size, root, signed)
        if witnessed is None:
            self._end_of_held(file, now)
            return
        manifest, document = self._read(file, now)
        self._in_order(manifest)
        latest = max(witnessed, self.witnessed)
        later = max(now, latest)
        if self.held is None or manifest["rollout"] != self.held["rollout"]:
            self._another(manifest, document, later)
        self._permitted(manifest, document)
        if witnessed > now + self.skew or manifest["issued"] > max(now, witnessed) + self.skew:
            raise ValueError("clocks")
        self._granted(manifest, witnessed, later)
        if self.held is not None and self.held["rollout"] != manifest["rollout"]:
            self.over.add(self.held["rollout"])
        self.held = self.cosigned = manifest
        self.document, self.witnessed, self.seen = document, latest, (size, root)
        self.floors.add(document.floor)

    def _published(self, file: File, size: int, root: bytes, signed: bool) -> None:
        if not signed or size >= 2**63:
            raise ValueError("not signed")
        earlier = [self.seen] if self.seen[0] else []
        if 0 < self.invitations[0] <= size:
            earlier.append(self.invitations)
        for before, known in earlier:
            proof = [] if before == size else file.consistency.get(before, [])
            if not extends(before, size, known, root, proof):
                raise ValueError("forked")
        for index, entry, path in file.entries:
            if not included(leaf_of(entry), index, size, path, root):
                raise ValueError("not logged")

    def _end_of_held(self, file: File, now: int) -> None:
        if self.document is None or not file.entries or file.entries[0][1] != self.document.entry:
            raise ValueError("not cosigned")
        manifest, _ = self._read(file, now)
        if manifest["state"] not in ENDED:
            raise ValueError("not cosigned")
        self._in_order(manifest)
        self.held = manifest

    def _read(self, file: File, now: int) -> tuple[Json, Document]:
        (_, first, _), (_, second, _) = file.entries
        document, manifest = Document(first), manifest_of(second)
        key = document.key.hex()
        pinned = [p for p in self.pins["plan_keys"] if p["key"] == key and p["first"] <= now < p["last"]]
        if key in self.pins["revoked"] or not pinned or not document.signed:
            raise ValueError("not signed")
        said = {"rollout": document.hash, **document.hashes}
        if any(manifest[name] != value for name, value in said.items()):
            raise ValueError("another rollout")
        for about in (manifest["population"], document.population):
            if sha(label("population") + about.encode()) != self.population:
                raise ValueError("another population")
        if {manifest["wake_word"], document.wake_word} != {self.wake_word}:
            raise ValueError("another wake word")
        return manifest, document

    def _in_order(self, manifest: Json) -> None:
        held, cosigned = self.held, self.cosigned
        follows = held is not None and held["rollout"] == manifest["rollout"]
        if held is not None and cosigned is not None:
            if manifest["sequence"] < cosigned["sequence"]:
                raise ValueError("of before")
            if any(manifest["sequence"] == e["sequence"] and manifest != e for e in (held, cosigned)):
                raise ValueError("another of the same number")
            if follows and held["state"] in ENDED and manifest["state"] != held["state"]:
                raise ValueError("ended")
            if follows and held["state"] == "complete" and manifest["state"] in ("shadow", "live"):
                raise ValueError("complete")
        if manifest["rollout"] in self.over and not follows:
            raise ValueError("over")

    def _another(self, manifest: Json, document: Document, later: int) -> None:
        state = manifest["state"]
        if state != "complete" and later >= document.end:
            raise ValueError("expired")
        if self.held is None or self.cosigned is None or self.document is None:
            model = document.versions["candidate" if state == "complete" else "baseline"]
            if any(older(model, each) for each in self.shipped):
                raise ValueError("older than shipped")
            return
        if state in ENDED:
            raise ValueError("the end of another")
        complete = [each["state"] == "complete" for each in (self.held, self.cosigned)]
        stays = (["candidate"] if any(complete) else []) + ([] if all(complete) else ["baseline"])
        goes_on = document.hashes["baseline"] in [self.document.hashes[role] for role in stays]
        newer = any(older(self.document.versions[role], document.versions["baseline"]) for role in stays)
        if not goes_on and (not newer or state == "shadow"):
            raise ValueError("does not go on")

    def _permitted(self, manifest: Json, document: Document) -> None:
        state = manifest["state"]
        if state in ENDED:
            if self.held is not None:
                return
        elif state != "complete":
            stage = document.stages[manifest["stage"]]
            right = (
                "shadow" in stage if state == "shadow" else stage.get("live") == Fraction(manifest["share"])
            )
            if not right or manifest["expires"] - manifest["issued"] > document.lease:
                raise ValueError("not a stage that was signed")
        for version in document.versions.values():
            if any(older(version, floor) for floor in {document.floor, *self.floors}):
                raise ValueError("under a floor")

    def _granted(self, manifest: Json, witnessed: int, later: int) -> None:
        if manifest["state"] not in ("live", "complete"):
            return
        grant = bytes.fromhex(manifest["grant"])
        about = {key: manifest[key] for key in ("rollout", "state", "stage", "share")}
        timed = len(grant) == 81
        issued, expires = times_of(grant) if timed else (0, 0)
        purpose = b"unheard-rollout-stage-1\n"
        if timed:
            about, purpose = about | {"issued": issued, "expires": expires}, b"unheard-rollout-stage-2\n"
        if not verifies(self.witness, grant[17:] if timed else grant, purpose + canonical(about)):
            raise ValueError("not granted")
        four = ("rollout", "state", "stage", "share")
        if self.held is not None and all(self.held[key] == manifest[key] for key in four):
            return
        over = witnessed if manifest["state"] == "complete" else later
        if not timed or issued > later + self.skew or over >= expires:
            raise ValueError("out of its time")

    def acts(self, now: int) -> str:
        """Which model acts, both being here."""
        held, document = self.held, self.document
        if held is None or document is None or document.key.hex() in self.pins["revoked"]:
            return "baseline"
        if held["state"] == "complete":
            return "candidate"
        later = max(now, self.witnessed)
        if held["state"] != "live" or now + self.skew < self.witnessed:
            return "baseline"
        if later >= document.end or later >= held["expires"]:
            return "baseline"
        drawn = hmac.digest(self.secret, bytes.fromhex(held["rollout"]), "sha256")
        below = Fraction(int.from_bytes(drawn, "big"), 2**256) < Fraction(held["share"])
        return "candidate" if below else "baseline"

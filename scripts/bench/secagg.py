"""What secure aggregation costs: ours beside Flower's SecAgg+ in one run, then ours alone at scale.

    python scripts/bench/secagg.py                  # everything; the peer takes minutes, 10,000 devices more
    python scripts/bench/secagg.py --alone 1000     # without the largest cohort
    python scripts/bench/secagg.py --beside         # ours only

All times are CPU seconds. The server runs in this process and is timed inside `requests` and `receive` only;
the devices run in two worker processes. None profits from what another already read or verified: the
caches are emptied for the server, for the witness and for each device that is timed. The witness
checks the round's charge against a year of earlier ones. Every sum is
compared with numpy's. Exit code 1 if a target of the design is missed.
"""

import argparse
import json
import multiprocessing
import resource
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from fractions import Fraction
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from fa_core.merkle import Tree, leaf_hash
from fa_core.plan import Plan, canonical, load
from fa_core.secagg import (
    DeviceIdentity,
    DeviceParty,
    Parameters,
    Server,
    Stage,
    Task,
    Trust,
    device,
    identity,
    messages,
    shamir,
)
from fa_core.secagg.identity import population_id, signed
from fa_core.secagg.messages import join_request
from fa_core.trust import budgets
from fa_core.trust import checkpoint as log
from fa_core.trust.charges import context_of, read_row
from fa_core.trust.witness import Witness
from fa_core.wire.agreement import task_of
from fa_core.wire.invitation import Invitation, encode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.device.setup import NOW, POPULATION, World, charge_entry, plan_of

WORKERS = 2
PIECE = 200
TIMED = 50
"""How many devices of each worker are timed, each from an empty memory."""


@dataclass
class Cost:
    """One round. CPU seconds; bytes that one device sends and receives; MiB of the server process."""

    what: str
    devices: int
    length: int
    neighbours: int
    lost: int
    server: float = 0.0
    device: float = 0.0
    witness: float = 0.0
    sent: int = 0
    received: int = 0
    memory: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)


def vectors(n: int, m: int) -> NDArray[np.int64]:
    """The same counts for ours and for the peer: 0 to 63."""
    return np.random.default_rng(n).integers(0, 64, size=(n, m))


def counted(row: NDArray[np.int64], devices: int) -> NDArray[np.int64]:
    """Return what a device counts, however many take part."""
    return row


def forget() -> None:
    """Empty the memory of what this process has read, verified and computed for another party."""
    for cached in (signed, identity._decode, identity._valid, device._on_roster, messages._member):
        cached.cache_clear()
    shamir._powers.cache_clear()


def serve_devices(
    pipe: Connection, task: Task, trust: Trust, identities: dict[int, DeviceIdentity], rows: NDArray[np.int64]
) -> None:
    """A worker: answers ("stage", {node: request}) with {node: reply}, and None with the CPU of the timed."""
    parties = {
        node: DeviceParty(task, enrolled, trust, partial(counted, rows[node]))
        for node, enrolled in identities.items()
    }
    timed = set(list(parties)[:TIMED])
    spent = 0.0
    while (order := pipe.recv()) is not None:
        stage, requests = order
        replies = {}
        for node, request in requests.items():
            if node in timed:
                forget()
            begin = time.process_time()
            replies[node] = getattr(parties[node], stage)(request)
            spent += time.process_time() - begin if node in timed else 0.0
        pipe.send(replies)
    pipe.send(spent / len(timed))


class TimedWitness:
    """A witness that counts its CPU, so that it can be taken out of the server's."""

    def __init__(self, witness: Witness) -> None:
        self.spent = 0.0
        self._witness = witness

    def _timed(self, call: Callable[[bytes], bytes], request: bytes) -> bytes:
        forget()
        begin = time.process_time()
        reply = call(request)
        self.spent += time.process_time() - begin
        forget()
        return reply

    def sign_roster(self, request: bytes) -> bytes:
        """As the witness."""
        return self._timed(self._witness.sign_roster, request)

    def sign_survivors(self, request: bytes) -> bytes:
        """As the witness."""
        return self._timed(self._witness.sign_survivors, request)

    def record_complaint(self, request: bytes) -> bytes:
        """As the witness."""
        return self._timed(self._witness.record_complaint, request)


@contextmanager
def workers(
    task: Task, trust: Trust, identities: list[DeviceIdentity], rows: NDArray[np.int64]
) -> Iterator[list[Connection]]:
    """The devices, dealt to worker processes; node i is with worker i mod WORKERS."""
    context = multiprocessing.get_context("fork")
    pipes, running = [], []
    for worker in range(WORKERS):
        here, there = context.Pipe()
        mine = {i: identities[i] for i in range(worker, len(identities), WORKERS)}
        running.append(
            context.Process(target=serve_devices, args=(there, task, trust, mine, rows), daemon=True)
        )
        running[-1].start()
        pipes.append(here)
    yield pipes
    for process in running:
        process.join()


def run_ours(what: str, n: int, m: int, lost: int, f: Fraction, gamma: Fraction = Fraction(1, 10)) -> Cost:
    """One round of ours in which `lost` devices deal shares and then never send a vector."""
    rows = vectors(n, m)
    with tempfile.TemporaryDirectory() as folder:
        world, plan = World(Path(folder)), plan_of()
        authority, witness = world.authority, world.witness()
        invited = world.invite(plan, world.release(), NOW, NOW)
        earlier_charges(witness, invited)
        timed = TimedWitness(witness)
        trust = Trust(authority.public_key, witness.public_key)
        context = context_of(NOW, (invited.checkpoint, invited.charge))
        population = population_id(POPULATION)
        task = Task(bytes.fromhex(plan.hash), invited.release, 0, m, 32, f, gamma, 3, context, population)
        with workers(task, trust, [authority.enrol(POPULATION) for _ in range(n)], rows) as pipes:
            server = Server(task, authority.public_key, timed, range(n), invited.charge_proof.encode())
            gone = set(np.random.default_rng(1).choice(n, lost, replace=False).tolist())
            cost = Cost(what, n, m, 0, lost)
            while server.stage is not None:
                drive(server, pipes, gone if server.stage is Stage.MASKED else set(), cost)
            for pipe in pipes:
                pipe.send(None)
            cost.device = sum(pipe.recv() for pipe in pipes) / len(pipes)
    cost.neighbours = server._neighbours.shape[1]
    cost.witness = timed.spent
    cost.server -= timed.spent
    cost.memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    counted = list(server.result.counted)
    assert len(counted) == n - lost
    assert np.array_equal(server.result.total, rows[counted].sum(axis=0))
    return cost


def earlier_charges(witness: Witness, invited: Invitation) -> None:
    """Put a year of weekly charges into the witness's journal, which it adds up for each roster."""
    charge, declared = read_row(invited.charge), budgets.read(invited.budgets, witness._authority)
    for week in range(52):
        witness._spend(replace(charge, release=f"{2**64 + week:032x}"), declared)


def invitation_under(plan: Plan, entries: int, earlier: int = 0) -> Invitation:
    """Return an invitation under a log of so many entries, a power of two, with as many earlier checkpoints.

    Its two paths are as long as any can be. The earlier checkpoints are spread over the log, whose tree is
    only made where there are some.
    """
    with tempfile.TemporaryDirectory() as folder:
        world, release = World(Path(folder)), secrets.token_bytes(16)
        charge, height = charge_entry(plan, release, NOW, NOW), entries.bit_length() - 1
        note = log.sign(entries, secrets.token_bytes(32), world.log_key)
        note += log.cosign(note, None, (), world.log_key.public_key(), world.witness_key, NOW)
        consistency: dict[int, tuple[bytes, ...]] = {}
        if earlier:
            tree = Tree([leaf_hash(number.to_bytes(4, "big")) for number in range(entries)])
            consistency = {old: tree.consistency(old) for old in range(1, entries, entries // earlier)}
        paths = [tuple(secrets.token_bytes(32) for _ in range(height)) for _ in range(2)]
        _, task = task_of(plan, release, 0, NOW, population_id(POPULATION), (note, charge))
        return Invitation(
            canonical(plan), secrets.token_bytes(32), secrets.token_bytes(64), release, 0, NOW, entries // 3,
            paths[0], note, charge, entries - 2, paths[1], world.budgets(), consistency, join_request(task),
        )  # fmt: skip


def longest_plan() -> Plan:
    """Return the shipped plan with the most canonical bytes."""
    shipped = (Path(__file__).parents[2] / "eval_plans").glob("*.yaml")
    return max((load(path, today=date.min) for path in shipped), key=lambda plan: len(canonical(plan)))


def drive(server: Server, pipes: list[Connection], gone: set[int], cost: Cost) -> None:
    """One stage: ask the workers piece by piece, as a network would, and give the server the replies."""
    stage = server.stage
    assert stage is not None
    before = cost.server
    replies: dict[int, bytes] = {}
    requests = server.requests()
    most_sent = most_received = 0
    asked = [node for node in requests if node not in gone]
    for first in range(0, len(asked), PIECE):
        nodes = asked[first : first + PIECE]
        begin = time.process_time()
        piece = {node: requests[node] for node in nodes}
        cost.server += time.process_time() - begin
        for worker, pipe in enumerate(pipes):
            pipe.send((stage.value, {node: r for node, r in piece.items() if node % WORKERS == worker}))
        for pipe in pipes:
            replies |= pipe.recv()
        most_received = max(most_received, *map(len, piece.values()))
        most_sent = max(most_sent, *(len(replies[node]) for node in nodes))
    cost.received += most_received
    cost.sent += most_sent
    begin = time.process_time()
    server.receive(replies)
    cost.server += time.process_time() - begin
    cost.stages[stage.value] = cost.server - before


def apart(job: Callable[..., Cost], *arguments: object) -> Cost:
    """Run a job in a process of its own, so that its memory is its own; return what it cost."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=lambda: there.send(job(*arguments)))
    process.start()
    there.close()
    try:
        cost: Cost = here.recv()
    except EOFError:
        sys.exit(f"{arguments[0]} failed; see above")
    process.join()
    return cost


def run_ours_complete(what: str, n: int, m: int, lost: int, f: Fraction) -> Cost:
    """Ours on a complete graph, which the parameters would not choose for so many."""
    complete = Parameters(n, n - 1, (n - 1) // 2 + n // 10 + 1, n - int(f * n))
    with (
        patch("fa_core.secagg.device.choose", lambda *_: complete),
        patch("fa_core.secagg.server.choose", lambda *_: complete),
        patch("fa_core.trust.witness.choose", lambda *_: complete),
    ):
        return run_ours(what, n, m, lost, f)


def run_peer(what: str, n: int, m: int, shares: int) -> Cost:
    """One round of Flower's own SecAgg+, without dropouts, over a Grid within this process."""
    from scripts.bench import flower_secagg  # imports Flower, which nothing else here needs

    return Cost(what, n, m, shares - 1, 0, *flower_secagg.run(vectors(n, m), shares))


TENTH, FIFTH = Fraction(1, 10), Fraction(1, 5)


def compare(cohorts: Iterable[int], cells: int) -> Iterator[tuple[Cost, list[Cost]]]:
    """(ours, the peer's) at each size that the peer can do."""
    for n in cohorts:
        if n > 31:
            ours = apart(run_ours, f"ours, n={n}", n, cells, 0, TENTH)
            yield ours, [apart(run_peer, f"Flower, n={n}, 31 shares", n, cells, 31)]
        ours = apart(run_ours_complete, f"ours, n={n}, complete", n, cells, 0, TENTH)
        yield ours, [apart(run_peer, f"Flower, n={n}, all shares", n, cells, n)]


def scale(cohorts: Iterable[int], cells: int) -> Iterator[Cost]:
    """Ours alone; up to 1,000 devices with twice the cells."""
    for n in cohorts:
        m = cells if n > 1_000 else 2 * cells
        for percent in (0, 5, 10):
            yield apart(run_ours, f"ours, n={n}, {percent}% lost", n, m, n * percent // 100, TENTH)
        yield apart(run_ours, f"ours, n={n}, f=0.2, 20% lost", n, m, n // 5, FIFTH)


def show(cost: Cost, ratios: str = "") -> None:
    """One line of the table."""
    print(
        f"{cost.what:30} k={cost.neighbours:<4}",
        f"server {cost.server:9.3f} s  device {1000 * cost.device:8.1f} ms  witness {cost.witness:6.3f} s",
        f"sends {cost.sent / 1024:6.1f} KiB  gets {cost.received / 1024:6.1f} KiB  {cost.memory:6.0f} MiB",
        ratios,
        sep="  ",
        flush=True,
    )


def verdicts(costs: dict[tuple[str, int], Cost]) -> Iterable[tuple[str, bool]]:
    """The performance targets of the design (section 10) that were measured, by (what, cells); and what the
    charge may cost the witness and an invitation."""
    plan = longest_plan()
    for height in (10, 20, 30):
        size = len(encode(invitation_under(plan, 2**height)))
        text = (
            f"an invitation to {plan.metadata.name} (the longest plan shipped), a log of 2^{height} entries"
        )
        yield f"{text}: {size:,} bytes (4,096 asked)", size < 4096
    beside = len(encode(invitation_under(plan, 2**10, 2**8))) - len(encode(invitation_under(plan, 2**10)))
    print(f"each earlier checkpoint that devices may have seen: {beside / 2**8:.0f} bytes more, of 256")
    for each in costs.values():
        # In a cohort of a few, the journal's fsync is all of it; it is paid once a round.
        if each.witness and each.devices >= 100:
            share = 1000 * each.witness / each.devices
            yield f"{each.what}: the witness {share:.2f} ms a device (1 ms asked)", share < 1
    if peer := costs.get(("Flower, n=100, all shares", 5_000)):
        ratio = peer.server / costs["ours, n=100, complete", 5_000].server
        yield f"n=100, complete: {ratio:.0f} times less server CPU (500 asked)", ratio >= 500
    if cost := costs.get(("ours, n=1000, 5% lost", 10_000)):
        yield f"n=1,000, m=10,000, 5% lost: server {cost.server:.2f} s (1.5 s asked)", cost.server < 1.5
    if cost := costs.get(("ours, n=10000, 5% lost", 5_000)):
        yield f"n=10,000, m=5,000, 5% lost: server {cost.server:.1f} s (20 s asked)", cost.server < 20
        yield f"… a device {1000 * cost.device:.0f} ms (100 ms asked)", cost.device < 0.1


def main() -> int:
    """Run what is asked for and print it; --json also writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--beside", type=int, nargs="*", default=[20, 50, 100], help="cohorts beside Flower's"
    )
    parser.add_argument("--alone", type=int, nargs="*", default=[1_000, 10_000], help="cohorts of ours alone")
    parser.add_argument("--cells", type=int, default=5_000, help="of a vector (5,000)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    costs: list[Cost] = []
    for ours, peers in compare(options.beside, options.cells):
        show(ours)
        for peer in peers:
            ratio = peer.server / ours.server
            show(peer, f"server x{ratio:.0f}, device x{peer.device / ours.device:.0f}")
        costs += [ours, *peers]
    for cost in scale(options.alone, options.cells):
        show(cost)
        costs.append(cost)
    if options.json:
        options.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=2))
    missed = 0
    for text, good in verdicts({(cost.what, cost.length): cost for cost in costs}):
        print(f"{'reached' if good else 'MISSED '}  {text}")
        missed += not good
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

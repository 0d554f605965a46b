"""`fa ledger`: what was spent on whom, what is left, and whether the record is whole."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from fa_core.canonical_json import utc_text
from fa_core.cli import render
from fa_core.cli.limits import Accounting, Limit, budgets_text, limits
from fa_core.errors import BadInput
from fa_core.privacy.ledger import (
    DEFAULT_POLICIES,
    UNITS,
    WEEK,
    Balance,
    Charge,
    Currency,
    Policy,
    balances,
)
from fa_core.privacy.ledger import show as exact
from fa_core.privacy.reservations import Planned
from fa_core.rollout.budget import set_aside
from fa_core.rounds.keys import keys_folder, local_keys
from fa_core.store import DEFAULT, Declaration, Store, open_store
from fa_core.trust import budgets
from fa_core.trust.enrolment import Authority, load, read_hex
from fa_core.trust.reconcile import Signed, compare, read_journal

app = typer.Typer(help="Show the privacy ledger, verify it, and set budgets.", no_args_is_help=True)

Where = Annotated[str, typer.Option("--store", help="A folder, or postgresql://…")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command()
def show(
    population: Annotated[str | None, typer.Option(help="Only this population.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many of the newest charges to list.")] = 20,
    store: Where = DEFAULT,
    as_json: AsJson = False,
) -> None:
    """Show each population's budgets, what is left of them, what was spent in all, and the newest charges."""
    now = datetime.now(UTC)
    with open_store(store, create=False) as opened:
        names = [population] if population is not None else opened.populations()
        shown = [_population(opened, name, now, limit) for name in names]
    if as_json:
        render.as_json({"at": utc_text(now), "populations": shown})
        return
    for each in shown:
        _print(each)


@app.command()
def verify(
    store: Where = DEFAULT,
    journal: Annotated[
        Path | None, typer.Option(help="The witness's journal, to compare with.", show_default=False)
    ] = None,
    authority: Annotated[
        Path | None,
        typer.Option(
            help="The enrolment authority's public key: it must have signed the budgets in force.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Recompute the ledger's chain, decide every charge again, and compare it with the transparency log.

    With --journal also with what the witness signed: a roster without its charge is a fault; a charge without
    a roster is listed as unused.
    """
    with open_store(store, create=False) as opened:
        problems, rows = opened.verify_ledger(), len(opened.ledger())
        if authority is not None:
            problems += _unsigned(opened, read_hex(authority))
        unused: list[str] = []
        if journal is not None:
            unused, found = _beside(opened, read_journal(journal))
            problems += found
    if as_json:
        compared = {} if journal is None else {"unused": unused}
        render.as_json({"good": not problems, "problems": problems, **compared})
    if problems:
        raise BadInput("the ledger does not verify:\n" + "\n".join(f"  {each}" for each in problems))
    if not as_json:
        count = render.plural(rows, "row")
        typer.echo(f"{count}: each follows from the one before, is in the log, and was within budget")
        for release in unused:
            typer.echo(f"unused: release {release} was charged, and the witness signed no roster for it")
        if journal is not None:
            typer.echo("every roster that the witness signed is charged here")


def _unsigned(store: Store, authority: bytes) -> list[str]:
    """Return a sentence for each population whose budgets in force the authority did not sign."""
    declared = (store.declaration(name) for name in store.populations())
    return [
        f"population {each.population}: its budgets are not signed by the enrolment authority"
        for each in declared
        if each is not None and not budgets.is_signed(each, authority)
    ]


def _beside(store: Store, journal: Signed) -> tuple[list[str], list[str]]:
    """Return the charges that were not used, and what is wrong, between a store and a witness's journal."""
    charges = [each for name in store.populations() for each in store.charges(name)]
    found = compare(charges, journal)
    notes = () if journal.checkpoint is None else (journal.checkpoint,)
    problems = [*found.problems, *store.verify_log(earlier=notes)]
    released = {each.id for each in store.releases(limit=store.count())}
    unwitnessed = [each for each in found.unused if each in released]
    problems += [
        f"release {each}: it is a secure sum, and the witness signed no roster for it"
        for each in unwitnessed
        if store.release(each).secure_aggregation
    ]
    return [each for each in found.unused if each not in released], problems


@app.command()
def declare(
    population: Annotated[
        str | None,
        typer.Argument(help="The population; fleet.json names that of a fleet.", show_default=False),
    ] = None,
    release: Limit = None,
    window: Limit = None,
    week: Limit = None,
    year: Limit = None,
    family: Limit = None,
    accounting: Annotated[
        Accounting | None, typer.Option(help="The kind of a new ledger: zcdp or pure. It never changes.")
    ] = None,
    signed: Annotated[
        Path | None, typer.Option(help="Take in what `fa enrol population` signed.", show_default=False)
    ] = None,
    authority: Annotated[
        Path | None,
        typer.Option(
            help="The authority: its directory, or with --signed its public key.", show_default=False
        ),
    ] = None,
    store: Where = DEFAULT,
) -> None:
    """Set budgets of a population from now on; what is left out stays. The log keeps every change.

    They hold once the enrolment authority signed them: that of the store's own engines, or of --authority.
    """
    given = {"release": release, "window": window, "week": week, "year": year, "family": family}
    with open_store(store) as opened:
        if signed is not None:
            if population is not None or any(given.values()) or accounting or authority is None:
                raise BadInput("--signed FILE goes with --authority authority.pub and nothing else")
            declared = budgets.read_file(signed, read_hex(authority))
        elif population is None:
            raise BadInput("name the population, or a file that the authority signed with --signed")
        else:
            before = opened.declaration(population)
            currency: Currency = accounting.value if accounting else before.currency if before else "zcdp"
            policy = replace(before.policy if before else DEFAULT_POLICIES[currency], **limits(given))
            unsigned = Declaration(population, currency, policy, datetime.now(UTC))
            declared = budgets.sign(unsigned, _authority(store, authority).key)
        opened.declare(declared)
    typer.echo(budgets_text(declared))


def _authority(store: str, directory: Path | None) -> Authority:
    """Return the authority in a directory, by default that of the store's own engines."""
    return load(directory) if directory is not None else local_keys(keys_folder(store)).authority


def _population(store: Store, name: str, now: datetime, limit: int) -> dict[str, Any]:
    declared, charges = store.declaration(name), store.charges(name)
    if declared is None:
        raise BadInput(f"population {name!r} has no ledger; there are: {', '.join(store.populations())}")
    reserved = set_aside(store.rollouts(), name, charges, now)
    return {
        "population": name,
        "accounting": declared.currency,
        "currency": UNITS[declared.currency],
        "budgets": [_balance(each) for each in _balances(declared.policy, charges, now)],
        "families": _families(declared.policy, charges, now),
        "spent": _spent(declared, charges),
        "charges": len(charges),
        "reserved": [_reserved(each.holder, planned) for each in reserved for planned in each.planned],
        "newest": [_charge(each) for each in reversed(charges[max(0, len(charges) - limit) :])],
    }


def _reserved(holder: str, planned: Planned) -> dict[str, Any]:
    charge = planned.charge
    return {
        "holder": holder,
        "for": planned.name,
        "plan_hash": charge.plan_hash,
        "cost": str(charge.cost),
        "from": utc_text(charge.at),
    }


def _balances(policy: Policy, charges: tuple[Charge, ...], now: datetime) -> tuple[Balance, ...]:
    """Return the budgets as a release about the last seven days would find them, families apart."""
    found = balances(policy, charges, family="", window=(now - WEEK, now), at=now)
    return tuple(each for each in found if each.budget != "family")


def _families(policy: Policy, charges: tuple[Charge, ...], now: datetime) -> list[dict[str, Any]]:
    shown = []
    for family, count in sorted(Counter(each.family for each in charges).items()):
        found = balances(policy, charges, family=family, window=(now - WEEK, now), at=now)
        shown.append(_balance(found[-1]) | {"family": family, "charges": count})
    return shown


def _spent(declared: Declaration, charges: tuple[Charge, ...]) -> dict[str, Any]:
    """Return what all charges ever made come to, in three views at the same delta."""
    total = sum((each.cost for each in charges), Fraction(0))
    shown: dict[str, Any] = {"total": str(total), "epsilon": 0.0, "delta": 0.0}
    if not charges:
        return shown
    from fa_core.privacy.accounting import epsilon_for
    from fa_core.privacy.conversions import ceiling, gaussian_approximation

    outer, delta = ceiling((each.epsilon, each.delta) for each in charges)
    if declared.currency == "pure":
        return shown | {"epsilon": float(total), "ceiling_epsilon": outer, "delta": delta}
    return shown | {
        "delta": delta,
        "epsilon": epsilon_for(total, Fraction(delta)),
        "epsilon_pld_approximation": gaussian_approximation(total, Fraction(delta)),
        "ceiling_epsilon": outer,
    }


def _balance(balance: Balance) -> dict[str, Any]:
    return {
        "budget": balance.budget,
        "limit": str(balance.limit),
        "spent": str(balance.spent),
        "left": str(balance.left),
        "frees": None if balance.frees is None else utc_text(balance.frees),
    }


def _charge(charge: Charge) -> dict[str, Any]:
    return {
        "release": charge.release,
        "family": charge.family,
        "plan_hash": charge.plan_hash,
        "cost": str(charge.cost),
        "epsilon": float(charge.epsilon),
        "delta": float(charge.delta),
        "window": {"start": utc_text(charge.window_start), "end": utc_text(charge.window_end)},
        "at": utc_text(charge.at),
    }


MEANS = {
    "release": "one release",
    "window": "all about the same events (the last 7 days)",
    "week": "all in any 7 days",
    "year": "all in any 365 days",
}


def _print(shown: dict[str, Any]) -> None:
    unit = shown["currency"]
    rows = [(each["budget"], MEANS[each["budget"]], *_amounts(each)) for each in shown["budgets"]]
    rows += [("family", f"{each['family']}, in any 365 days", *_amounts(each)) for each in shown["families"]]
    headers = ("budget", "of", f"limit ({unit})", "spent", "left", "next part returns")
    render.table(
        f"Population {shown['population']}: {render.plural(shown['charges'], 'charge')}", headers, rows
    )
    for line in _totals(shown["spent"], unit):
        typer.echo(line)
    if shown["reserved"]:
        aside = [
            (each["holder"], each["for"], each["from"][:16].replace("T", " "), _amount(each["cost"]))
            for each in shown["reserved"]
        ]
        total = _amount(str(sum((Fraction(each["cost"]) for each in shown["reserved"]), Fraction(0))))
        render.table(f"Set aside: {unit} {total}", ("for", "what", "from (UTC)", unit), aside)
    if shown["newest"]:
        newest = [
            (each["at"][:16].replace("T", " "), each["release"][:12], each["family"], _amount(each["cost"]))
            for each in shown["newest"]
        ]
        render.table("Newest charges", ("charged", "release", "plan family", unit), newest)


def _amounts(each: dict[str, Any]) -> tuple[str, ...]:
    frees = "" if each["frees"] is None else each["frees"][:16].replace("T", " ")
    return (*(_amount(each[key]) for key in ("limit", "spent", "left")), frees)


def _amount(text: str) -> str:
    return exact(Fraction(text)).removeprefix("about ")


def _totals(spent: dict[str, Any], unit: str) -> list[str]:
    if "ceiling_epsilon" not in spent:
        return ["Nothing was spent."]
    lines = [f"Spent in all: {unit} {_amount(spent['total'])}"]
    at = f"at delta {spent['delta']:.3g}" if spent["delta"] else "with delta 0"
    lines.append(f"  as epsilon {spent['epsilon']:.3g} {at}, the claim")
    if "epsilon_pld_approximation" in spent:
        tight = spent["epsilon_pld_approximation"]
        lines.append(f"  as epsilon {tight:.3g}, by a Gaussian approximation (not enforced)")
    lines.append(
        f"  as epsilon {spent['ceiling_epsilon']:.3g} at most, by each release's own claim (outer ceiling)"
    )
    return lines

"""`fa report`: one page that a review board can file. No script, nothing foreign, everything escaped."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Annotated, Final

import typer

from fa_core.canonical_json import utc_text
from fa_core.cli import render
from fa_core.cli.coverage import row as coverage_row
from fa_core.errors import BadInput
from fa_core.estimate.coverage import coverage
from fa_core.estimate.integrity import about_integrity, plan_of
from fa_core.estimate.measure import measure
from fa_core.estimate.sentences import WHICH_DECIDES, about_estimand, about_groups
from fa_core.privacy.guarantee import guarantee
from fa_core.store import DEFAULT, Entry, LogEntry, Store, open_store, verify_commands
from fa_core.values import Cell, Estimate, Estimates, Release

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")

STYLE: Final = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#111;background:#fff}"
    "table{border-collapse:collapse;margin:.5em 0 1.5em}th,td{border:1px solid #bbb;padding:.2em .6em;"
    "text-align:left;vertical-align:top}td{overflow-wrap:anywhere;min-width:4.5em}"
    ".notes{color:#444}pre{background:#f4f4f4;padding:.8em;white-space:pre-wrap;overflow-wrap:anywhere}"
    ".mark{border:3px solid #a00;color:#a00;padding:.4em .8em;font-weight:bold}"
)


def report(
    release: Annotated[
        str, typer.Argument(help="A release: `latest`, its id or its first digits.", metavar="RELEASE")
    ],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    pdf: Annotated[bool, typer.Option("--pdf", help="Write PDF, through an installed Chromium.")] = False,
    store: Annotated[str, typer.Option("--store", help="A folder, or postgresql://…")] = DEFAULT,
) -> None:
    """Write a release as one page: what was asked, signed, spent, found and hidden, and how to verify."""
    with open_store(store, create=False) as opened:
        entry = opened.find(release)
        text = report_of(opened, entry)
    try:
        out.write_bytes(_printed(text) if pdf else text.encode())
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror}") from None
    typer.echo(f"{out}: release {entry.id}")


def report_of(store: Store, entry: Entry) -> str:
    """Return the page of a release in a store."""
    found, estimates = store.read(entry)
    log = [each for each in store.entries() if each.subject in (entry.plan_hash, entry.id)]
    return page(entry, found, estimates, log)


def page(entry: Entry, release: Release, estimates: Estimates, log: Sequence[LogEntry]) -> str:
    """Return the page. `log` holds the transparency log's entries about the plan and the release."""
    shown = render.release_object(release, estimates, synthetic=entry.synthetic)
    marks = [
        text
        for text, on in ((render.SIMULATION, release.simulated), (render.SYNTHETIC, entry.synthetic))
        if on
    ]
    plan, devices, privacy = f"{shown['plan']}@{shown['revision']}", shown["devices"], shown["privacy"]
    facts = [
        ("release", entry.id),
        ("made", f"{shown['created']} on {release.engine}"),
        ("window", f"{utc_text(release.window_start)} to {utc_text(release.window_end)}"),
        ("population", release.population),
        ("devices", ", ".join(f"{count:,} {name}" for name, count in devices.items())),
        ("charged to every device", _charged(release)),
        ("mechanism", f"{privacy['noise']} {privacy['mechanism'].replace('_', ' ')}"),
    ]
    signed = [
        (f"entry {each.index}", each.kind, str(each.body.get("key", "")), str(each.body.get("signature", "")))
        for each in log
    ]
    sections = [
        *(f'<p class="mark">{escape(mark)}</p>' for mark in marks),
        f"<h1>{escape(plan)}</h1><p>{escape(str(shown['question']))}</p>",
        _table((), facts),
        "<h2>What every device is promised</h2>",
        *(f"<p>{escape(sentence)}</p>" for sentence in guarantee(release)),
        "<h2>Guardrails</h2>",
        _table(
            ("metric", "by", "limit", "verdict", ""),
            [
                (j.metric, ", ".join(j.by), limit, j.verdict.replace("_", " "), sentence)
                for j, (limit, sentence) in render.verdicts(estimates)
            ],
        ),
        f'<p class="notes">{escape(WHICH_DECIDES)}</p>',
        f'<p class="notes">{escape(about_integrity(plan_of(release), estimates))}</p>',
        *_results(estimates, render.estimands_of(release)),
        "<h2>Who was counted</h2>",
        _table(
            ("fact", "value", "devices", "share", "95 % interval"),
            [coverage_row(each)[:5] for each in coverage(release)],
            "The plan breaks no metric down by facts of the device alone: there is nothing more to show.",
        ),
        "<h2>In the transparency log, and who signed</h2>",
        _table(("place", "what", "key", "signature"), signed),
        "<h2>How to verify</h2>",
        f"<pre>{escape(_commands(entry))}</pre>",
        "<h2>The plan, as it was signed</h2>",
        f"<pre>{escape(release.plan.decode())}</pre>",
    ]
    title = escape(f"{plan}, release {entry.id[:12]}")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(sections)}</body></html>'


def _charged(release: Release) -> str:
    """Return the cost in its currency: readable, and exact as the ledger has it."""
    cost = release.layout.cost
    name = "rho" if release.layout.accounting == "zcdp" else "epsilon"
    return f"{name} {render.short(cost)}, exactly {cost}"


def _results(estimates: Estimates, of: Mapping[str, str]) -> Iterable[str]:
    def by(result: Estimate) -> tuple[str, tuple[str, ...]]:
        return result.metric, tuple(name for name, _ in result.group)

    level = f"{estimates.level:.0%} interval"
    for (metric, names), found in groupby(estimates.results, by):
        results = list(found)
        axis = measure(results[0].kind, results[0].unit).axis
        yield f"<h2>{escape(metric)} by {escape(', '.join(names) or 'everyone')} ({escape(axis)})</h2>"
        sentence = about_groups(results) if not any(result.cells for result in results) else ""
        notes = " ".join(filter(None, (about_estimand(of.get(metric, "")), sentence)))
        yield f'<p class="notes">{escape(notes)}</p>'
        numbers = [
            (result, number)
            for result in results
            for number in ((result,) if result.suppressed or not result.cells else result.cells)
        ]
        rows = [_row(*each) for each in numbers if not each[1].suppressed]
        yield _table(("group", "estimate", level, "privacy noise alone", "devices"), rows)
        hidden: dict[str, list[str]] = {}
        for result, number in numbers:
            if number.suppressed:
                hidden.setdefault(number.reason, []).append(_group(result, number))
        for reason, groups in hidden.items():
            yield f'<p class="notes">Not shown, {escape(reason)}: {escape("; ".join(groups))}.</p>'


def _group(result: Estimate, shown: Estimate | Cell) -> str:
    labels = shown.labels if isinstance(shown, Cell) else ()
    return " · ".join(label for _, label in (*result.group, *labels)) or "everyone"


def _row(result: Estimate, shown: Estimate | Cell) -> tuple[str, ...]:
    of = measure(result.kind, result.unit, shown.labels if isinstance(shown, Cell) else ())
    noise = (shown.noise_low, shown.noise_high) if isinstance(shown, Estimate) else (None, None)
    return (
        _group(result, shown),
        of.estimate(shown),
        of.interval(shown.low, shown.high),
        of.interval(*noise),
        render.devices(result.devices, result.devices_sd),
    )


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], empty: str = "None.") -> str:
    head = "".join(f"<th>{escape(header)}</th>" for header in headers)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>" if body else f"<p>{escape(empty)}</p>"


def _commands(entry: Entry) -> str:
    commands = "\n".join(verify_commands(entry.id, DEFAULT))
    return (
        f"{commands}\n\n"
        f"SHA-256 of the plan       {entry.plan_hash}\n"
        f"SHA-256 of the release    {entry.release_sha256}\n"
        f"SHA-256 of the estimates  {entry.estimates_sha256}"
    )


def _printed(text: str) -> bytes:
    """Return the page as PDF. Raises BadInput where no browser is installed or it does not print."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise BadInput("--pdf needs Chromium, and none is installed; leave --pdf out and print the HTML page")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "report.html"), Path(folder, "report.pdf")
        source.write_text(text, encoding="utf-8")
        asked = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
        try:
            subprocess.run(
                [browser, *asked, f"--print-to-pdf={target}", source.as_uri()],
                check=True, capture_output=True, timeout=60,
            )  # fmt: skip
            return target.read_bytes()
        except (subprocess.SubprocessError, OSError):
            raise BadInput(
                f"{browser} did not print the page; leave --pdf out and print it yourself"
            ) from None

"""What is saved comes back equal, exists once, and was charged before; on SQLite and on PostgreSQL."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pyarrow.compute as pc
import pytest
from sqlalchemy import create_engine, inspect, text

from fa_core.database import connection
from fa_core.database.connection import Unavailable
from fa_core.errors import BadInput, Refused
from fa_core.privacy.ledger import Policy
from fa_core.store import Declaration, Query, Store, chain, open_store, translog
from fa_core.store.database import connect_folder, connect_server
from fa_core.store.schema import metadata
from tests.store.samples import (
    DAY,
    LOG_KEY,
    NOW,
    WITNESS_KEY,
    KeepingWitness,
    announce,
    charge,
    charge_for,
    make_estimates,
    make_release,
    plan,
    release_id,
    run,
    same,
)

BUDGETS = Policy(*[Fraction(100)] * 5)


def test_a_release_and_its_estimates_come_back_equal(store: Store) -> None:
    release = make_release()
    entry = run(store, release)
    assert store.find("latest") == entry
    assert same(store.release(release.id), release)
    assert same(store.estimates(release.id[:6]), make_estimates())
    glance = replace(make_estimates(), results=tuple(replace(r, cells=()) for r in make_estimates().results))
    assert same(store.glance(entry), glance)
    assert (entry.results, entry.suppressed, entry.broken, entry.synthetic) == (4, 1, 1, True)


def test_another_process_sees_what_was_committed(where: str) -> None:
    with open_store(where) as first:
        run(first, make_release())
    with open_store(where, create=False) as second:
        assert same(second.read(second.find("latest"))[0], make_release())


def test_the_catalogue_is_asked_by_plan_population_and_time_newest_first(store: Store) -> None:
    store.declare(Declaration("homes", "zcdp", BUDGETS, NOW))
    for number in range(6):
        name = "det" if number % 2 else "wake-word-weekly"
        run(store, make_release(number, name, "labs" if number == 5 else "homes", NOW + number * DAY))
    newest = [each.id for each in store.releases()]
    assert newest == [release_id(number) for number in (5, 4, 3, 2, 1, 0)]
    assert [each.id for each in store.releases(limit=2, offset=1)] == newest[1:3]
    assert store.count(Query(plan="det")) == 3
    assert store.count(Query(plan="det", population="homes")) == 2
    between = Query(since=NOW + DAY, until=NOW + 3 * DAY)
    assert [each.id for each in store.releases(between)] == [release_id(2), release_id(1)]


def test_a_release_is_found_by_latest_or_by_its_first_digits(store: Store) -> None:
    with pytest.raises(BadInput, match="no release yet"):
        store.find("latest")
    run(store, make_release())
    assert store.find(release_id(0).upper()[:5]).id == release_id(0)
    with pytest.raises(BadInput, match="is not a release: give `latest`"):
        store.find("zebra")
    with pytest.raises(BadInput, match="4 or more"):
        store.find(release_id(0)[:3])
    with pytest.raises(BadInput, match="no release starts with 0123"):
        store.find("0123")


def test_a_prefix_of_two_releases_names_both(store: Store) -> None:
    for tail in "12":
        run(store, replace(make_release(), id="abcd" + tail * 28))
    with pytest.raises(BadInput, match="more than one release starts with abcd: abcd111"):
        store.find("abcd")


def test_a_release_exists_once(store: Store) -> None:
    release = make_release()
    run(store, release)
    with pytest.raises(Refused, match="ended before"):
        store.save(replace(release, engine="other"), make_estimates(), synthetic=True)
    with pytest.raises(Refused, match="ended before"):
        store.fail(release.id, release.plan, "homes", "unmask", "too few devices were left", NOW)
    assert same(store.release(release.id), release)
    assert store.failures() == ()


def test_nothing_is_released_that_was_not_charged(store: Store) -> None:
    release = make_release()
    announce(store, release.plan)
    with pytest.raises(Refused, match="was not charged"):
        store.save(release, make_estimates(), synthetic=True)
    charge(store, replace(charge_for(release), cost=release.layout.cost - Fraction(1, 10**9)))
    with pytest.raises(Refused, match="another plan, population or cost"):
        store.save(release, make_estimates(), synthetic=True)
    assert store.count() == 0


@pytest.mark.parametrize("change", [{"window_start": NOW - 6 * DAY}, {"population": "labs"}])
def test_a_charge_is_for_one_window_of_one_population(store: Store, change: dict[str, object]) -> None:
    release = make_release()
    announce(store, release.plan)
    charge(store, replace(charge_for(release), **change))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="was charged for another"):
        store.save(release, make_estimates(), synthetic=True)


def test_a_plan_is_in_the_log_before_it_is_charged(store: Store) -> None:
    with pytest.raises(Refused, match="not in the transparency log"):
        store.charge(charge_for(make_release()))
    assert store.ledger() == ()


def test_a_release_is_charged_once(store: Store) -> None:
    run(store, make_release())
    with pytest.raises(Refused, match="was charged before"):
        store.charge(charge_for(make_release()))
    with pytest.raises(Refused, match="was charged before"):
        charge(store, replace(charge_for(make_release()), population="labs"))
    assert (len(store.charges("homes")), store.charges("labs")) == (1, ())


def test_a_release_holds_the_plan_that_its_layout_was_compiled_from(store: Store) -> None:
    release, other = make_release(), make_release(2)
    announce(store, release.plan)
    charge(store, charge_for(release))
    with pytest.raises(ValueError, match="another plan than its layout"):
        store.save(replace(release, plan=plan(revision=2)), make_estimates(), synthetic=True)
    with pytest.raises(ValueError, match="do not belong"):
        store.save(release, replace(make_estimates(), release=other.id), synthetic=True)
    assert store.count() == 0
    store.save(release, make_estimates(), synthetic=True)


def test_a_failed_round_keeps_its_charge(store: Store) -> None:
    release = make_release()
    announce(store, release.plan)
    charge(store, charge_for(release))
    store.fail(release.id, release.plan, "homes", "unmask", "too few devices were left", NOW)
    (failure,) = store.failures()
    assert (failure.stage, failure.plan, failure.at) == ("unmask", "wake-word-weekly", NOW)
    assert [each.cost for each in store.charges("homes")] == [release.layout.cost]
    with pytest.raises(BadInput, match="failed at unmask and released nothing: too few"):
        store.find(release.id)
    with pytest.raises(Refused, match="ended before"):
        store.save(release, make_estimates(), synthetic=True)


def test_refusals_are_kept_with_their_reason_newest_first(store: Store) -> None:
    for day in range(2):
        store.refuse(release_id(day), plan(), "homes", f"reason {day}", NOW + day * DAY)
    assert [(each.plan, each.reason, each.at) for each in store.refusals()] == [
        ("wake-word-weekly", "reason 1", NOW + DAY),
        ("wake-word-weekly", "reason 0", NOW),
    ]
    assert (store.log_size(), store.refusals(limit=1, offset=2)) == (0, ())


def test_annotations_are_of_one_plan_or_of_all_and_can_be_removed(store: Store) -> None:
    day = NOW.date()
    every = store.annotate(day + DAY, "  model 5 on all phones ")
    own = store.annotate(day, "model 4", "wake-word-weekly")
    other = store.annotate(day, "noise", "other")
    assert every.text == "model 5 on all phones"
    assert store.annotations("wake-word-weekly") == (own, every)
    assert set(store.annotations()) == {every, own, other}
    store.remove_annotation(own.id)
    assert store.annotations("wake-word-weekly") == (every,)
    with pytest.raises(BadInput, match="no annotation"):
        store.remove_annotation(own.id)
    for wrong in ("", "a\u202eb", "x" * 121):
        with pytest.raises(BadInput, match="the text of the annotation"):
            store.annotate(day, wrong)


def test_nothing_is_charged_to_a_population_without_budgets(store: Store) -> None:
    """Else an aggregator would give itself a budget with each new name."""
    announce(store, plan())
    with pytest.raises(Refused, match="population 'homes' has no budgets in this ledger"):
        store.charge(charge_for(make_release()))
    assert store.declaration("homes") is None
    assert store.ledger() == ()


def test_a_population_keeps_its_kind_of_ledger(store: Store) -> None:
    run(store, make_release())
    with pytest.raises(Refused, match="cannot become one of pure"):
        store.declare(Declaration("homes", "pure", BUDGETS, NOW))
    pure = replace(charge_for(make_release(1)), currency="pure")
    with pytest.raises(Refused, match="a ledger of zcdp"):
        store.charge(pure)


def test_a_refused_charge_writes_nothing(store: Store) -> None:
    announce(store, plan())
    store.declare(Declaration("homes", "zcdp", replace(BUDGETS, week=Fraction(1, 60)), NOW))
    store.charge(charge_for(make_release(0)))
    before = store.log_size()
    with pytest.raises(Refused, match="week budget"):
        store.charge(charge_for(make_release(1)))
    assert (len(store.charges("homes")), store.log_size()) == (1, before)


def test_lowered_budgets_hold_from_then_on(store: Store) -> None:
    run(store, make_release(0))
    store.declare(Declaration("homes", "zcdp", replace(BUDGETS, family=Fraction(1, 64)), NOW))
    with pytest.raises(Refused, match=r"family budget: asks rho 0.015625, 0 of 0.015625 is left"):
        store.charge(charge_for(make_release(1)))
    assert store.verify_ledger() == []


def test_numbers_are_read_by_column_and_filter_over_many_releases(store: Store) -> None:
    entries = [run(store, make_release(number)) for number in range(3)]
    shown = store.results(entries, ["group", "estimate"], pc.is_valid(pc.field("estimate")))
    assert shown.column_names == ["release", "group", "estimate"]
    assert len(shown) == 3 * 6
    assert shown["release"].to_pylist()[::6] == [release_id(number) for number in range(3)]
    assert shown["group"].to_pylist()[1] == '{"accent": "en-US"}'
    assert len(store.results([])) == 0


def test_the_log_holds_every_step(store: Store) -> None:
    store.note_key("authority", bytes(32))
    run(store, make_release(0))
    store.fail(release_id(1), plan(), "homes", "join", "nobody answered", NOW)
    assert [each.kind for each in store.entries()] == [
        "key",
        "key",
        "plan",
        "ledger",
        "ledger",
        "release",
        "failure",
    ]
    assert announce(store, plan()) == 2, "a plan is announced once"
    assert store.entries(5, 6)[0].body["release_sha256"] == store.find("latest").release_sha256


def test_an_untouched_store_verifies(store: Store) -> None:
    witness = KeepingWitness()
    for number in range(3):
        run(store, make_release(number))
        store.checkpoint(LOG_KEY, witness)
    store.fail(release_id(7), plan(), "homes", "join", "nobody answered", NOW)
    store.checkpoint(LOG_KEY, witness)
    assert store.verify_ledger() == []
    assert store.verify_log(LOG_KEY.public_key(), WITNESS_KEY.public_key(), witness.signed) == []


def test_a_reader_sees_one_moment_while_others_write(where: str) -> None:
    with open_store(where) as reader, open_store(where) as writer:
        announce(writer, plan())
        with reader._database.reading() as connection:
            before = translog.size(connection)
            charge(writer, charge_for(make_release()))
            assert translog.size(connection) == before
            assert chain.populations(connection) == ()
        assert reader.populations() == ("homes",)


def test_migrations_build_the_declared_tables_both_ways(where: str, tmp_path: Path) -> None:
    open_store(where).close()
    server = "://" in where
    database = connect_server(where) if server else connect_folder(Path(where))
    engine = create_engine(
        where.replace("postgresql:", "postgresql+psycopg:") if server else f"sqlite:///{where}/store.db"
    )
    declared = {
        table.name: sorted((column.name, column.nullable) for column in table.columns)
        for table in metadata.sorted_tables
    }
    built = {
        name: sorted((column["name"], column["nullable"]) for column in inspect(engine).get_columns(name))
        for name in declared
    }
    assert built == declared
    with database.writing() as connection:
        database.lineage.downgrade(connection, "base")
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    engine.dispose()
    database.close()
    with open_store(where) as again:
        run(again, make_release())


def test_a_store_that_is_not_there_is_not_made_by_looking(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no store in"):
        open_store(tmp_path / "nothing", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", ["mysql://user:hush@host/db", "postgresql://a b:[", "http://x"])
def test_another_address_is_refused_without_its_password(address: str) -> None:
    with pytest.raises(BadInput) as refused:
        open_store(address)
    assert "hush" not in str(refused.value)


def test_a_server_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"postgresql://u:\*\*\*@/db.* cannot be used") as refused:
        open_store(f"postgresql://u:hush@/db?host={tmp_path}")
    assert "hush" not in str(refused.value)


def cut_off(store: Store) -> None:
    """Lose the connection in the middle of a transaction."""
    with store._database.writing() as connection:
        mine = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with store._database.reading() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": mine})
        connection.execute(text("SELECT 1"))


def ask_nonsense(store: Store) -> None:
    """Ask what no database understands."""
    with store._database.reading() as connection:
        connection.execute(text("SELECT * FROM no_such_table"))


def test_a_server_that_goes_away_in_between_is_known_from_a_store_that_is_wrong(
    new_database: Callable[[], str],
) -> None:
    """Only the first may be back in a moment. And the next transaction has a connection of its own."""
    with open_store(new_database()) as store:
        with pytest.raises(Unavailable, match="cannot be used"):
            cut_off(store)
        assert store.count() == 0
        with pytest.raises(BadInput) as wrong:
            ask_nonsense(store)
        assert not isinstance(wrong.value, Unavailable)


def test_a_stuck_writer_blocks_others_for_a_limited_time(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 1)
    with (
        open_store(where) as stuck,
        open_store(where) as other,
        ThreadPoolExecutor(1) as beside,
        stuck._database.writing(),
    ):
        asked = beside.submit(run, other, make_release())
        with pytest.raises(Unavailable, match="was busy for 1 seconds"):
            asked.result(timeout=60)  # a guard against hanging, not a measure
        assert other.count() == 0


def test_the_secret_part_of_an_address_is_not_shown(tmp_path: Path) -> None:
    for secret in ("password=hush", "sslpassword=hush"):
        with pytest.raises(Unavailable) as refused:
            open_store(f"postgresql://u@h/db?{secret}&host={tmp_path}")
        assert "hush" not in str(refused.value)

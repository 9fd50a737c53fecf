"""What the bench makes of what it has measured."""

from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import pytest

from bench.figures import paired, slope
from bench.loadgen import bulk_body
from bench.measures.delivering import most_at_once
from bench.measures.flowing import most_beyond
from bench.report import figures
from bench.rows import Row, at_least, at_most
from bench.statements import Statement, claims_ms, finding_claims_ms, parsed


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    # the ratio of the medians would be 1
    assert paired([1, 2, 30], [30, 2, 1])["ratio"] == 1
    assert paired([100, 10, 1], [50, 9, 3])["ratio"] == 0.9


def test_a_target_is_met_at_its_very_value_and_zero_is_the_best_of_at_most() -> None:
    assert at_least(0.6).met(0.6) and not at_least(0.6).met(0.59)
    assert at_most(0).met(0) and at_most(0).met(-1) and not at_most(0).met(1)
    assert at_most(20).share(40) == 0.5 and at_most(20).share(0) == at_most(0).share(0) == 10


def test_a_row_shows_what_its_path_leads_to() -> None:
    row = Row("start delay", "idle.p99_ms", "ms", at_most(20), "p50 {idle[p50_ms]:.1f} ms")
    figure = row.figure("start-delay", {"idle": {"p99_ms": 25.0, "p50_ms": 3.0}})
    assert (figure["value"], figure["met"], figure["of_target"], figure["beside"]) == (25.0, False, 0.8, "p50 3.0 ms")


def test_the_best_peer_is_the_fastest_and_for_enqueues_the_fastest_on_postgres() -> None:
    def peer(store: str, per_process: float | None, enqueues: float | None) -> dict[str, object]:
        return {"store": store, "1": {"to_sluice": per_process}, "enqueues": {"to_sluice": enqueues}}

    summary = {
        "sluice": peer("Postgres", 1, 1),
        "bare": peer("Postgres", 2, None),
        "a": peer("Postgres", 0.8, 0.25),
        "b": peer("Redis", 0.5, 0.9),
        "c": peer("Postgres", None, None),
    }
    delivered, enqueued = figures({}, {"summary": summary})
    assert (delivered["beside"].partition(";")[0], delivered["value"]) == ("a", 1.25)
    assert (enqueued["beside"].partition(";")[0], enqueued["value"]) == ("a", 4.0)


def test_a_slope_is_per_unit_of_time() -> None:
    assert slope([0, 1, 2], [5, 7, 9]) == 2


def test_a_rate_is_exceeded_by_what_its_fullest_window_has_beyond_it() -> None:
    begun = datetime(2026, 1, 1, tzinfo=UTC)

    def beyond(*seconds: float) -> float:
        return round(most_beyond([begun + timedelta(seconds=second) for second in seconds], 10), 3)

    assert beyond() == 0
    assert beyond(0, 0.1, 0.2, 0.3) == 1, "evenly spread"
    assert beyond(0, 0, 0, 5) == 3
    # neither what was not used before, nor the burst alone, but both windows together
    assert beyond(0, 9, 9, 9.1, 9.1, 9.1) == 4


def test_keyed_tasks_of_a_batch_have_their_keys_in_turns() -> None:
    tasks = msgspec.json.decode(bulk_body(3, keys=2, first=3))["tasks"]
    assert [task["key"] for task in tasks] == ["k1", "k0", "k1"]
    assert "key" not in bulk_body(2).decode()


def test_statements_are_those_of_the_database_that_were_executed() -> None:
    lines = [
        "2026-01-01 00:00:00.000 UTC [7] one LOG:  duration: 1.250 ms  execute __asyncpg_stmt_1__: select * from f($1)",
        "2026-01-01 00:00:00.000 UTC [7] one LOG:  duration: 0.100 ms  parse __asyncpg_stmt_1__: select * from f($1)",
        "2026-01-01 00:00:00.000 UTC [7] other LOG:  duration: 9.000 ms  statement: select 1",
        "\tsecond line of a statement",
    ]
    assert parsed(lines, "one") == [Statement(1.25, "select * from f($1)")]


def test_a_claim_that_finds_a_task_follows_its_enqueue() -> None:
    enqueue, settle = (
        Statement(0.5, "select * from sluice.enqueue_v1($1)"),
        Statement(0.3, "select sluice.settle_v1($1)"),
    )
    claims = [Statement(ms, "select * from sluice.claim_v1($1, $2)") for ms in (3, 1, 2)]
    seen = [enqueue, claims[0], settle, claims[1], enqueue, claims[2], settle]
    assert claims_ms(seen) == [1, 2, 3]
    assert finding_claims_ms(seen) == [2, 3]


@pytest.mark.anyio
async def test_attempts_that_touch_do_not_overlap_and_those_before_do_not_count(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    begun = datetime(2026, 1, 1, tzinfo=UTC)

    def at(*seconds: float) -> list[datetime]:
        return [begun + timedelta(seconds=second) for second in seconds]

    try:
        # tables of its own, which are gone with the transaction
        async with connection.transaction():
            await connection.execute("create schema seen")
            for table, names in (
                ("task_history", "last_started_at, last_ended_at"),
                ("attempt_history", "started_at, ended_at"),
            ):
                columns = ", ".join(f"{name} timestamptz" for name in names.split(", "))
                await connection.execute(f"create table seen.{table} ({columns})")
            rows = [at(-1, 9), at(0, 1), at(1, 2), at(1.5, 3), at(1.75, 2), at(2, 4)]
            await connection.executemany("insert into seen.task_history values ($1, $2)", rows[:3])
            await connection.executemany("insert into seen.attempt_history values ($1, $2)", rows[3:])
            assert await most_at_once(connection, begun, "seen") == 3
            assert await most_at_once(connection, begun + timedelta(seconds=1.6), "seen") == 1
            raise _Undo
    except _Undo:
        pass
    finally:
        await connection.close()


class _Undo(Exception):
    pass

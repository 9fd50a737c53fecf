"""The measures, what each row of the table shows of them, and what it should reach."""

from bench.measures import (
    aging,
    bridging,
    crowding,
    delays,
    delivering,
    enqueueing,
    firing,
    flowing,
    lasting,
    looking,
    paging,
    settling,
    wiring,
)
from bench.rows import Measure, Row, Run, at_least, at_most


def _leaving(name: str, run: Run, where: str) -> Measure:
    """The measure of tasks that leave by a bridge."""
    return Measure(
        name,
        run,
        (
            Row(
                f"tasks that leave to {where}, of webhooks",
                "ratio",
                "x",
                None,
                "{target:,.0f} of {webhook:,.0f} tasks/s",
            ),
            Row(
                "the same: CPU time of the service, per task",
                "target_cost.service_us",
                "us",
                None,
                "{webhook_cost[service_us]:.0f} us as a webhook",
            ),
        ),
    )


MEASURES = (
    Measure(
        "end-to-end",
        delivering.end_to_end,
        (
            Row(
                "end to end, one process, of bare",
                "ratio",
                "x",
                at_least(0.6),
                "{sluice:,.0f} of {bare:,.0f} tasks/s",
                headline=True,
            ),
            Row("the same: CPU time of the service, per task", "cost.service_us", "us"),
            Row("the same: CPU time of Postgres, per task", "cost.postgres_us", "us"),
            Row(
                "the same: WAL, per task",
                "cost.deliver_wal_bytes",
                "B",
                None,
                "and {cost[enqueue_wal_bytes]:,.0f} B for its enqueue, in batches of 1,000",
            ),
        ),
    ),
    Measure(
        "limits",
        delivering.limits,
        (
            Row(
                "with limits on queue and tenant, 4 replicas, of unlimited",
                "several.ratio",
                "x",
                at_least(0.9),
                "{several[limited]:,.0f} of {several[unlimited]:,.0f} tasks/s",
                headline=True,
            ),
            Row(
                "with limits on queue and tenant, 1 replica, of unlimited",
                "one.ratio",
                "x",
                None,
                "{one[limited]:,.0f} of {one[unlimited]:,.0f} tasks/s",
            ),
            Row("most attempts at once under a limit of 64", "several.most_at_once", "", at_most(64)),
            Row(
                "bare with 64 at once, of bare",
                "bare.ratio",
                "x",
                None,
                "{bare[limited]:,.0f} of {bare[unlimited]:,.0f} tasks/s",
            ),
        ),
    ),
    Measure(
        "keys",
        flowing.keys,
        (
            *(
                row
                for name, keys in (("few", "1 key"), ("some", "1,000 keys"), ("many", "100,000 keys"))
                for row in (
                    Row(
                        f"tasks with {keys}, of tasks without",
                        f"{name}.ratio",
                        "x",
                        None,
                        f"{{{name}[keyed]:,.0f}} of {{{name}[plain]:,.0f}} tasks/s, {{{name}[tasks]:,}} tasks",
                    ),
                    Row(
                        "the same: CPU time of the service, per task",
                        f"{name}.keyed_cost.service_us",
                        "us",
                        None,
                        f"{{{name}[plain_cost][service_us]:.0f}} us without",
                    ),
                    Row(
                        "the same: CPU time of Postgres, per task",
                        f"{name}.keyed_cost.postgres_us",
                        "us",
                        None,
                        f"{{{name}[plain_cost][postgres_us]:.0f}} us without",
                    ),
                )
            ),
            Row(
                "beside a key with 1,000,000 tasks: another key's start delay, p50, of idle",
                "neighbour.ratio",
                "x",
                at_most(2),
                "{neighbour[beside][p50_ms]:.1f} of {neighbour[idle][p50_ms]:.1f} ms; "
                "{neighbour[per_second]:,.0f}/s of the other key meanwhile",
                headline=True,
            ),
            Row(
                "the same, p99",
                "neighbour.beside.p99_ms",
                "ms",
                None,
                "{neighbour[idle][p99_ms]:.1f} ms idle; {neighbour[beside][samples]} tasks",
            ),
            Row(
                "a free key behind 10,000 blocked ones: claim, p50",
                "blocked.p50_ms",
                "ms",
                at_most(5),
                "p99 {blocked[p99_ms]:.1f} ms; start delay p50 {blocked[start_delay][p50_ms]:.1f} ms",
                headline=True,
            ),
        ),
    ),
    Measure(
        "exact",
        flowing.exact,
        (
            Row(
                "one named limit of 64, two queues, 4 replicas, of unlimited",
                "named.ratio",
                "x",
                None,
                "{named[limited]:,.0f} of {named[unlimited]:,.0f} tasks/s",
            ),
            Row("most attempts at once under a named limit of 64", "named.most_at_once", "", at_most(64)),
            Row(
                "a rate of 500/s, 4 replicas: how far from it",
                "rate.off",
                "%",
                at_most(0.01),
                "{rate[per_second]:.1f}/s started over {rate[seconds]:.0f} s",
                headline=True,
            ),
            Row("most starts beyond 500/s in any window, with a burst of 50", "rate.most_beyond", "", at_most(50)),
        ),
    ),
    Measure(
        "many-queues",
        delivering.many_queues,
        (
            Row(
                "1,000 active queues, tasks arriving, of one queue",
                "arriving.ratio",
                "x",
                at_least(0.85),
                "{arriving[many]:,.0f} of {arriving[one]:,.0f} tasks/s, {queues:,} queues",
                headline=True,
            ),
            Row(
                "1,000 active queues, tasks stored beforehand, of one queue",
                "stored.ratio",
                "x",
                at_least(0.85),
                "{stored[many]:,.0f} of {stored[one]:,.0f} tasks/s",
            ),
        ),
    ),
    Measure(
        "both",
        delivering.both,
        (
            Row(
                "both at once, sustained, one replica, of bare doing both",
                "ratio",
                "x",
                at_least(0.4),
                "{per_second:,.0f} of {bare:,.0f} tasks/s; backlog at most {backlog_max:,}",
                headline=True,
            ),
            Row(
                "both at once, of bare delivering what is stored",
                "ratio_to_stored",
                "x",
                None,
                "{per_second:,.0f} of {bare_stored:,.0f} tasks/s",
            ),
            Row("both at once: start delay, p99", "start_delay.p99_ms", "ms", None, "p50 {start_delay[p50_ms]:.0f} ms"),
        ),
    ),
    Measure(
        "both-apart",
        delivering.both_apart,
        (
            Row(
                "both at once, one replica that takes and one that delivers",
                "ratio",
                "x",
                at_least(0.4),
                "{per_second:,.0f} of {bare:,.0f} tasks/s; backlog at most {backlog_max:,}",
                headline=True,
            ),
            Row("the same: start delay, p99", "start_delay.p99_ms", "ms", None, "p50 {start_delay[p50_ms]:.0f} ms"),
        ),
    ),
    Measure(
        "enqueue",
        enqueueing.single,
        (
            Row("enqueue, one POST per task, 64 connections", "sluice", "/s", at_least(5_000), headline=True),
            Row("the same, of a bare route", "ratio", "x", None, "{sluice:,.0f} of {bare:,.0f}/s"),
        ),
    ),
    Measure(
        "bulk",
        enqueueing.bulk,
        (
            Row("enqueue in batches of 1,000, two clients", "two.sluice", "/s", at_least(50_000), headline=True),
            Row(
                "the same, of bare inserts without HTTP",
                "two.ratio",
                "x",
                None,
                "{two[sluice]:,.0f} of {two[bare]:,.0f}/s",
            ),
            Row("enqueue in batches of 1,000, one client", "one.sluice", "/s"),
        ),
    ),
    Measure(
        "start-delay",
        delays.start_delay,
        (
            Row("start delay, idle, p50", "idle.p50_ms", "ms", at_most(3), headline=True),
            Row("the same, of a bare relay", "bare.p50_ms", "ms", None, "insert, claim and POST, without any feature"),
            Row("start delay, idle, p99", "idle.p99_ms", "ms", at_most(20), "{idle[samples]} tasks", headline=True),
            Row(
                "start delay, through another replica, p99",
                "other_replica.p99_ms",
                "ms",
                at_most(100),
                "p50 {other_replica[p50_ms]:.1f} ms",
            ),
            Row(
                "start delay at half the maximum rate, p99",
                "half.p99_ms",
                "ms",
                at_most(100),
                "p50 {half[p50_ms]:.1f} ms at {rate:,.0f} tasks/s",
            ),
        ),
    ),
    Measure(
        "idle",
        crowding.idle,
        (
            Row(
                "10,000 idle queues, 1,000,000 delayed tasks, of none",
                "end_to_end.ratio",
                "x",
                at_least(0.8),
                "{end_to_end[with]:,.0f} of {end_to_end[none]:,.0f} tasks/s",
                headline=True,
            ),
            Row(
                "an idle service: share of a core",
                "idle.service_share",
                "%",
                at_most(0.01),
                "Postgres {idle[postgres_share]:.1%}",
            ),
            Row("an idle service: statements", "idle.statements_per_second", "/s", at_most(5)),
        ),
    ),
    Measure(
        "history",
        aging.history,
        (
            Row(
                "beside finished tasks in history, of none",
                "end_to_end.ratio",
                "x",
                at_least(0.9),
                "{tasks:,} tasks; {end_to_end[full]:,.0f} of {end_to_end[empty]:,.0f} tasks/s",
                headline=True,
            ),
            Row("dropping a day of history", "dropping.ms", "ms", at_most(500), "{dropping[tasks]:,} tasks"),
        ),
    ),
    Measure(
        "xmin",
        aging.held_xmin,
        (
            Row(
                "a held snapshot at half rate: claim p99, of before",
                "during_to_before",
                "x",
                at_most(2),
                "{during[p99_ms]:.1f} of {before[p99_ms]:.1f} ms, after {seconds:.0f} s",
            ),
            Row("claim p99 after it has ended, of before", "after_to_before", "x", None, "{after[p99_ms]:.1f} ms"),
        ),
    ),
    Measure(
        "memory",
        lasting.memory,
        (
            Row("memory, 64 in flight", "plain_mb", "MB", at_most(150)),
            Row(
                "memory, 64 in flight, 1,000,000 ready tasks behind",
                "behind_mb",
                "MB",
                at_most(150),
                "{left:,} left",
                headline=True,
            ),
        ),
    ),
    Measure(
        "soak",
        lasting.soak,
        (
            Row(
                "soak at 80 %: memory, per minute",
                "memory_mb_per_minute",
                "MB",
                at_most(1),
                "{memory_mb:.0f} MB after {seconds:.0f} s at {rate:,.0f} tasks/s",
            ),
            Row(
                "soak at 80 %: more file descriptors, at rest after it than before",
                "more_descriptors",
                "",
                at_most(0),
                "{descriptors[1]} and {descriptors[0]}; under load {loaded_descriptors[0]} and {loaded_descriptors[1]}, "
                "the fewest of the first third and of the last",
            ),
            Row("soak at 80 %: more threads", "more_threads", "", at_most(0), "{threads[1]} in the end"),
        ),
    ),
    Measure(
        "fire-lag",
        firing.fire_lag,
        (
            Row(
                "10,000 schedules due in one second: the last one fired",
                "most.max_seconds",
                "s",
                at_most(3),
                "p50 {most[p50_seconds]:.1f} s, {most[schedules]:,} schedules",
                headline=True,
            ),
            Row(
                "statements with 10,000 schedules that are not due",
                "idle.many.statements_per_second",
                "/s",
                None,
                "{idle[one][statements_per_second]:.1f}/s with one",
            ),
        ),
    ),
    Measure(
        "overview",
        looking.overview,
        (
            Row(
                "1,000 queues watched by 20 viewers, of a core",
                "share",
                "%",
                at_most(0.05),
                "service {watched[service]:.3f}, Postgres {watched[postgres]:.3f}; idle {idle[service]:.3f}, "
                "{idle[postgres]:.3f}; {overviews} overviews each",
            ),
            Row(
                "1,000 queues asked for by 20 viewers every 2 s, of a core",
                "polled_share",
                "%",
                at_most(0.05),
                "service {polled[service]:.3f}, Postgres {polled[postgres]:.3f}",
            ),
            Row(
                "an overview of 1,000 queues, as of the last two seconds",
                "kept.p50_ms",
                "ms",
                at_most(50),
                "{taken[p50_ms]:.0f} ms when it is read anew; {kept[kb]:.0f} kB",
            ),
        ),
    ),
    Measure(
        "pages",
        paging.pages,
        (
            Row(
                "the slowest page with 1,000,000 tasks",
                "slowest_ms",
                "ms",
                at_most(300),
                "{slowest}, of {tasks:,.0f} tasks; half of the pages take less than {median_ms:.0f} ms",
            ),
            Row(
                "an open page of 1,000 queues, renewed for 20 viewers, of a core",
                "open.share",
                "%",
                at_most(0.05),
                "service {open[service]:.3f}, Postgres {open[postgres]:.3f}; {open[renewals]} renewals",
            ),
        ),
    ),
    Measure(
        "settle",
        settling.settle,
        (Row("settled tasks of one batch, of plain ones", "ratio", "x", None, "{batch:,.0f} of {plain:,.0f}/s"),),
    ),
    Measure(
        "sqs",
        wiring.sqs,
        (
            Row(
                "sent, received and deleted over the SQS wire, of the lease API",
                "leases.ratio",
                "x",
                at_least(0.7),
                "{leases[sqs]:,.0f} of {leases[leases]:,.0f} tasks/s",
            ),
            Row(
                "the same, of moto's server",
                "moto.ratio",
                "x",
                None,
                "{moto[sqs]:,.0f} of {moto[moto]:,.0f} messages/s",
            ),
        ),
    ),
    _leaving("to-sqs", bridging.to_sqs, "SQS"),
    _leaving("to-redis", bridging.to_redis, "a Redis stream"),
)

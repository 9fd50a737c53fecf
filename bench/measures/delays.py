"""From sending a POST to the handler's call: into an idle service, through another replica, and under load."""

import asyncio
from typing import Any

from bench.figures import milliseconds
from bench.ground import QUEUE, Ground
from bench.subject import Subject, delays_of, one_at_a_time

WARM = 10
HALF = 0.5
PULSE_SECONDS = 2.5
"""By then a replica knows that it is not alone; before, it announces nothing, and others find its tasks when they poll."""


async def start_delay(ground: Ground) -> dict[str, Any]:
    """One task at a time into an idle service, between two halves of the same into a bare relay; the same into a replica that has
    no engine, beside one that has; then a stream at half the rate that the service can drain."""
    size = ground.size
    bare = await _bare(ground, size.delays // 2)
    async with ground.subject(path="/stamp") as subject:
        idle = await _one_by_one(ground, subject, size.delays)
        bare += await _bare(ground, size.delays // 2)
        top = await ground.paced(subject, size.load_seconds)
        half = await ground.paced(subject, 2 * size.load_seconds, rate=HALF * top["per_second"])
    async with ground.subject(role="api", path="/stamp") as subject:
        await subject.add_replicas(1, role="engine")
        await asyncio.sleep(PULSE_SECONDS)
        other = await _one_by_one(ground, subject, size.delays // 2)
    return {
        "idle": idle,
        "bare": milliseconds(bare),
        "other_replica": other,
        "half": half["start_delay"],
        "rate": half["per_second"],
        "top": top["per_second"],
    }


async def _one_by_one(ground: Ground, subject: Subject, count: int) -> dict[str, float]:
    if ground.size.warmed:
        await subject.start_delays(QUEUE, WARM, ground.reports)
    delays = await subject.start_delays(QUEUE, count, ground.reports)
    ground.expect(count, len(delays), "one at a time")
    return milliseconds(delays)


async def _bare(ground: Ground, count: int) -> list[float]:
    """Seconds from sending each POST to its call, of a relay that does nothing else: insert, claim, POST, settle."""
    relay, at = await ground.child("bench.ceiling", "relay", ground.database("bare"), f"{ground.handler_url}/stamp")
    if ground.size.warmed:
        await one_at_a_time(at["url"], WARM, dict)
    await ground.reports.take()
    await one_at_a_time(at["url"], count, dict)
    delays = delays_of(await ground.reports.take())
    ground.expect(count, len(delays), "one at a time, bare")
    await relay.stop()
    await ground.bare.execute("truncate bare")
    return delays

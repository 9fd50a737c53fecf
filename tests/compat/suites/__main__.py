"""Run the suites against Sluice and against moto's server, and write docs/reference/sqs-suites.md."""

import asyncio

from tests.compat.suites.report import PAGE, page
from tests.compat.suites.running import KOMBU, MOTO, run
from tests.compat.suites.servers import moto_server, sluice_server


async def main() -> None:
    async with sluice_server() as sluice, moto_server() as moto:
        found = {suite.package: [await run(suite, endpoint) for endpoint in (sluice, moto)] for suite in (MOTO, KOMBU)}
    for package, outcomes in found.items():
        for server, outcome in zip(("sluice", "moto"), outcomes, strict=True):
            print(f"{package} against {server}: {outcome.passed} of {outcome.ran}; failed: {', '.join(outcome.failed)}")
    PAGE.write_text(page(*found["moto"], *found["kombu"]))


asyncio.run(main())

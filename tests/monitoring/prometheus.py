"""Debian's Prometheus beside replicas of a test, with the rules of deploy/prometheus and no patience."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import yaml

from tests.docs.pages import ROOT
from tests.docs.ports import free_ports
from tests.support import poll

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
SCRAPE = "200ms"


def program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"{name} is not here: apt-get install prometheus kubernetes-client"
    return found


def impatient(rules: str) -> str:
    """The rules, firing at once."""
    document = yaml.safe_load(rules)
    for group in document["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    return str(yaml.safe_dump(document))


class Prometheus:
    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def ask(self, expression: str) -> list[dict[str, Any]]:
        """The answer's series, now."""
        reply = await self._client.get("/api/v1/query", params={"query": expression})
        assert reply.status_code == 200, reply.text
        result: list[dict[str, Any]] = reply.json()["data"]["result"]
        return result

    async def firing(self) -> dict[str, dict[str, Any]]:
        """The alerts that fire, by name; of several with one name, one."""
        alerts = (await self._client.get("/api/v1/alerts")).json()["data"]["alerts"]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["state"] == "firing"}

    async def fires(self, *names: str, timeout_seconds: float = 20) -> dict[str, dict[str, Any]]:
        """Wait until all of these fire."""

        async def all_of_them() -> dict[str, dict[str, Any]] | None:
            found = await self.firing()
            return found if found.keys() >= set(names) else None

        return await poll(all_of_them, timeout_seconds, every_seconds=0.1)

    async def is_calm(self) -> None:
        """Wait until no alert fires: the first evaluation was before the first scrape."""

        async def nothing() -> bool:
            return not await self.firing()

        await poll(nothing, 20, every_seconds=0.1)

    async def knows(self, expression: str) -> None:
        """Wait until this has an answer."""
        await poll(lambda: self.ask(expression), 20, every_seconds=0.1)

    async def has_scraped(self, targets: int) -> None:
        async def up() -> bool:
            return len(await self.ask("up == 1")) == targets

        await poll(up, 20, every_seconds=0.1)


@asynccontextmanager
async def prometheus(folder: Path, urls: Iterable[str]) -> AsyncIterator[Prometheus]:
    """Scrape these replicas, and judge the rules."""
    (folder / "rules.yml").write_text(impatient(RULES.read_text()))
    (folder / "prometheus.yml").write_text(
        yaml.safe_dump(
            {
                "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE},
                "rule_files": ["rules.yml"],
                "scrape_configs": [
                    {"job_name": "sluice", "static_configs": [{"targets": [urlsplit(url).netloc for url in urls]}]}
                ],
            }
        )
    )
    [port] = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    )
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as client:

            async def ready() -> bool:
                assert process.returncode is None
                try:
                    return (await client.get("/-/ready")).status_code == 200
                except httpx2.TransportError:
                    return False

            await poll(ready, 30, every_seconds=0.1)
            yield Prometheus(client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()

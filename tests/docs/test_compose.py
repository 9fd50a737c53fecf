"""The container files, as far as they can be held to the settings and to each other without an engine to run them."""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import yaml

from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.signing import parse_secret
from app.delivery.webhook.urls import check_url
from app.settings import Settings, load, unknown_variables
from tests.docs.pages import ROOT, blocks
from tests.handlers import Handler
from tests.sluices import SluiceProcess

DOCKERFILE = (ROOT / "Dockerfile").read_text()
CADDYFILE = (ROOT / "deploy" / "Caddyfile").read_text()
GUIDE = ROOT / "docs" / "guides" / "containers.md"


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"]
    return found


def image_environment() -> dict[str, str]:
    """The ENV of the last stage."""
    last = DOCKERFILE.split("\nFROM ")[-1].replace("\\\n", " ")
    pairs = [pair for line in re.findall(r"^ENV (.*)$", last, re.MULTILINE) for pair in shlex.split(line)]
    return dict(pair.split("=", 1) for pair in pairs)


def settings_of(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("${SLUICE_ENCRYPTION_KEY:-}", ""))
    return load()


def replica_environment() -> dict[str, str]:
    environment = {**image_environment(), **compose()["services"]["sluice"]["environment"]}
    return {name: value for name, value in environment.items() if name.startswith("SLUICE_")}


def test_every_sluice_variable_is_a_setting() -> None:
    assert unknown_variables(replica_environment()) == []
    assert unknown_variables(dict.fromkeys(re.findall(r"\bSLUICE_\w+", GUIDE.read_text()), "")) == []
    assert unknown_variables(dict.fromkeys(re.findall(r"\bSLUICE_\w+", DOCKERFILE), "")) == []


def test_replicas_start_with_these_settings(monkeypatch: pytest.MonkeyPatch, services: dict[str, Any]) -> None:
    settings = settings_of(monkeypatch, replica_environment())
    assert settings.auth_required
    assert settings.bootstrap_key is not None
    assert settings.database_url is not None
    url, postgres = urlsplit(settings.database_url.get_secret_value()), services["postgres"]
    given = postgres["environment"]
    assert url.hostname == "postgres"
    assert (url.username, url.password, url.path) == (
        given["POSTGRES_USER"],
        given["POSTGRES_PASSWORD"],
        f"/{given['POSTGRES_DB']}",
    )
    assert services["sluice"]["deploy"]["replicas"] == 3
    grace = re.fullmatch(r"(\d+)s", services["sluice"]["stop_grace_period"])
    assert grace is not None and int(grace[1]) > settings.drain_grace_seconds


@pytest.mark.anyio
async def test_the_handler_may_be_called_at_its_private_address(
    monkeypatch: pytest.MonkeyPatch, services: dict[str, Any]
) -> None:
    async def resolver(host: str, _port: int) -> list[str]:
        return {"handler": ["172.20.0.5"], "postgres": ["172.20.0.2"]}[host]

    settings = settings_of(monkeypatch, replica_environment())
    policy = EgressPolicy(settings.egress, resolver=resolver)
    port = services["handler"]["environment"]["PORT"]
    assert await policy.vet(check_url(f"http://handler:{port}/"), "default") == ("172.20.0.5",)
    with pytest.raises(Exception, match="not allowed"):
        await policy.vet(check_url("http://postgres:5432/"), "default")


def test_ports_agree(services: dict[str, Any]) -> None:
    port = image_environment()["SLUICE_PORT"]
    assert f"EXPOSE {port}" in DOCKERFILE
    assert re.search(rf"dynamic a {{\s+name sluice\s+port {port}\s", CADDYFILE)
    (published,) = services["proxy"]["ports"]
    host, outside, inside = published.split(":")
    assert host == "127.0.0.1"
    assert f"\n:{inside} {{" in CADDYFILE
    assert services["sluice"]["environment"]["SLUICE_PUBLIC_URL"] == f"http://127.0.0.1:{outside}"
    handler_port = services["handler"]["environment"]["PORT"]
    assert f"127.0.0.1:{handler_port}/" in services["handler"]["healthcheck"]["test"][-1]


def test_images_are_pinned_and_of_this_version(services: dict[str, Any]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = [service["image"] for service in services.values()] + re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    for image in images:
        name, _, tag = image.partition(":")
        assert re.match(r"\d+\.\d+", tag), image
        if name == "sluice":
            assert tag == version
        if name == "python":
            assert tag == "3.11-slim-bookworm"


def test_what_is_mounted_and_copied_is_there(services: dict[str, Any]) -> None:
    for service in services.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert source in compose()["volumes"] or (ROOT / source).exists(), mount
    copied = {
        source.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied >= {"app", "alembic", "pyproject.toml", "requirements"}
    allowed = {line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_runs_what_is_locked_as_a_user_without_rights() -> None:
    build, last = DOCKERFILE.split("\nFROM ")[-2:]
    installs = re.findall(r"(?:pip install|pip sync) .*", build)
    assert all("--require-hashes" in line or "--no-deps /tmp/wheel/" in line for line in installs)
    assert "requirements/runtime.txt" in build
    assert "/tools" not in last
    assert re.search(r"^USER 10001$", last, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", last, re.MULTILINE)


def test_all_start_again_by_themselves(services: dict[str, Any]) -> None:
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}


def test_the_build_trusts_the_certificates_it_is_given() -> None:
    """Each step that fetches something gets them, as its line of shell says."""
    steps = re.findall(r"^RUN ((?:.*\\\n)*.*)", DOCKERFILE, re.MULTILINE)
    for step in steps:
        script = step.replace("--mount=type=secret,id=ca \\\n", "")
        assert subprocess.run(["sh", "-n", "-c", script]).returncode == 0, script
        fetches = "requirements/" in script
        assert fetches == step.startswith("--mount=type=secret,id=ca ")
        assert not fetches or "PIP_CERT=/run/secrets/ca SSL_CERT_FILE=/run/secrets/ca" in script


def test_the_guide_uses_the_keys_of_the_compose_file(services: dict[str, Any]) -> None:
    lines = "\n".join(blocks(GUIDE, "sh"))
    secret = services["handler"]["environment"]["WEBHOOK_SECRET"]
    assert parse_secret(secret)
    assert f'"secret": "{secret}"' in lines
    assert f"KEY={services['sluice']['environment']['SLUICE_BOOTSTRAP_KEY']}\n" in lines
    assert f"http://handler:{services['handler']['environment']['PORT']}/" in lines


@pytest.mark.ci
@pytest.mark.anyio
async def test_a_replica_with_these_settings_delivers_to_a_named_private_handler(
    start_sluice: Callable[..., Awaitable[SluiceProcess]], handler: Handler
) -> None:
    """As in the compose file, but for the names of the hosts and the ports."""
    given = replica_environment()
    process = await start_sluice(
        SLUICE_HOST=given["SLUICE_HOST"],
        SLUICE_BOOTSTRAP_KEY=given["SLUICE_BOOTSTRAP_KEY"],
        SLUICE_EGRESS_ALLOW="localhost",
    )
    key = {"authorization": f"Bearer {given['SLUICE_BOOTSTRAP_KEY']}"}
    port = urlsplit(process.url).port
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=key, trust_env=False) as client:
        assert (await client.get("/queues", headers={"authorization": ""})).status_code == 401
        url = f"http://localhost:{urlsplit(handler.url).port}/"
        (await client.put("/handlers/ledger", json={"url": url})).raise_for_status()
        (await client.put("/queues/bookings", json={"handler": "ledger"})).raise_for_status()
        task = (await client.post("/queues/bookings/tasks", json={"payload": {"account": "ada", "amount": 5}})).json()
        await handler.received(1, task=task["id"])


def test_the_handler_of_the_compose_file_is_the_example(services: dict[str, Any]) -> None:
    mount = services["handler"]["volumes"][0]
    source, target, mode = mount.split(":")
    assert mode == "ro"
    script = Path(services["handler"]["command"][-1])
    assert (ROOT / source / script.relative_to(target)).is_file()

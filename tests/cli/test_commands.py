"""The commands that need no service, and the page that is made from the settings."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from app.cli import reference
from app.cli.main import cli


def sluice(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli.main", *arguments],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_config_shows_values_and_sources() -> None:
    shown = CliRunner().invoke(
        cli, ["config"], env={"SLUICE_PORT": "9000", "SLUICE_BOOTSTRAP_KEY": "slk_0123456789abcdefghijklmnop"}
    )
    rows = {line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines()}
    assert rows["SLUICE_PORT"] == ["9000", "env"]
    assert rows["SLUICE_BOOTSTRAP_KEY"] == ["***", "env"]
    assert rows["SLUICE_LEASE_SECONDS"] == ["30", "default"]
    assert rows["SLUICE_AUTH"] == ["on", "default"]


def test_config_as_json() -> None:
    shown = json.loads(CliRunner().invoke(cli, ["config", "--json"]).stdout)
    assert shown["SLUICE_PORT"] == {"value": 8080, "source": "default"}


@pytest.mark.ci
def test_settings_that_are_refused_end_the_command_with_their_words_alone() -> None:
    ended = sluice("config", SLUICE_LEASE_SECONDS="1", SLUICE_HOTS="x")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "warning: SLUICE_HOTS is not a setting, did you mean SLUICE_HOST?",
        "SLUICE_LEASE_SECONDS=1: input should be greater than or equal to 5.",
    ]


def test_version_is_the_packages() -> None:
    assert CliRunner().invoke(cli, ["version"]).stdout.strip().count(".") == 2


def test_the_command_line_starts_without_the_service() -> None:
    heavy = ("fastapi", "sqlalchemy", "alembic", "asyncpg", "uvicorn", "opentelemetry")
    code = f"import sys, app.cli.main; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_reference_is_what_the_code_says(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    assert reference.main(["--check"]) == 0, "run `make reference`"
    monkeypatch.setattr(reference, "FOLDER", tmp_path)
    assert reference.main(["--check"]) == 1
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0

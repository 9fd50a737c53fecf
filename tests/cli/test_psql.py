"""`make psql` finds the database and a program to look into it with."""

import asyncio
from pathlib import Path

import pytest

from app.cli.psql import NoDatabase, command
from app.embedded.postgres import EmbeddedPostgres

pytestmark = pytest.mark.anyio


@pytest.mark.ci
async def test_it_opens_the_database_of_the_sluice_that_runs_there(durable_postgres: EmbeddedPostgres) -> None:
    folder = {"SLUICE_DATA_DIR": str(durable_postgres.directory.path)}
    line = command(folder, ["--no-psqlrc", "-Atc", "select current_database()"])
    program = await asyncio.create_subprocess_exec(*line, stdout=asyncio.subprocess.PIPE)
    assert (await program.communicate())[0] == b"sluice\n"


def test_a_database_that_is_given_comes_first(tmp_path: Path) -> None:
    given = {"SLUICE_DATABASE_URL": "postgresql://db/a", "SLUICE_DATA_DIR": str(tmp_path)}
    assert command(given, [])[1:] == ["postgresql://db/a"]


def test_where_no_sluice_runs_it_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(NoDatabase, match="make up"):
        command({"SLUICE_DATA_DIR": str(tmp_path)}, [])

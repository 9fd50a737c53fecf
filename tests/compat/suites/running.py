"""Fetch a suite, and run it against a server.

The suites come from the registry with the source distribution of the version that is installed here, and stay in `build/suites`.
"""

import asyncio
import os
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

ROOT = Path(__file__).parents[3]
FETCHED = ROOT / "build" / "suites"
PLUGIN = Path(__file__).parent / "plugin"
MOTOS_ADDRESS = "http://localhost:5000"
"""What moto's tests take their server's address for, whatever it is."""
NAMES_OF_NOBODY = {"AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": "anything"}


@dataclass(frozen=True)
class Suite:
    package: str
    files: tuple[str, ...]
    options: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        return version(self.package)


MOTO = Suite("moto", ("tests/test_sqs/test_sqs.py", "tests/test_sqs/test_sqs_message_attributes.py"), ("-p", "forget"))
KOMBU = Suite("kombu", ("t/integration/test_sqs.py",), ("-o", "python_classes=test_*"))


@dataclass(frozen=True)
class Outcome:
    passed: int
    failed: tuple[str, ...]
    """Names of tests, without their file."""
    skipped: int
    """Tests that skip themselves where they cannot reach into the server."""

    @property
    def ran(self) -> int:
        return self.passed + len(self.failed)


async def run(suite: Suite, endpoint: str) -> Outcome:
    """Run a suite against a server of SQS. Raises RuntimeError if it cannot be fetched, or does not get to its end."""
    folder = await _fetched(suite, endpoint)
    results = folder / "results.xml"
    results.unlink(missing_ok=True)
    where = urlsplit(endpoint)
    environment = {
        **os.environ,
        **NAMES_OF_NOBODY,
        "PYTHONPATH": str(PLUGIN),
        "TEST_SERVER_MODE": "true",
        "TEST_SERVER_MODE_ENDPOINT": endpoint,
        "MOTO_CALL_RESET_API": "false",
        "SQS_HOST": str(where.hostname),
        "SQS_PORT": str(where.port),
    }
    options = ("-c", os.devnull, "--rootdir=.", "-q", "-W", "ignore", "-p", "no:cacheprovider", f"--junitxml={results}")
    output = await _program(
        "-m", "pytest", *options, *suite.options, *suite.files, folder=folder, environment=environment
    )
    if not results.exists():
        raise RuntimeError(f"the suite of {suite.package} did not run:\n{output[-4000:]}")
    (folder / "output.txt").write_text(output)
    return _read(results)


def _read(results: Path) -> Outcome:
    passed, skipped, failed = 0, 0, []
    for case in ElementTree.parse(results).iter("testcase"):
        if case.find("skipped") is not None:
            skipped += 1
        elif case.find("failure") is not None or case.find("error") is not None:
            failed.append(case.attrib["name"])
        else:
            passed += 1
    return Outcome(passed, tuple(sorted(failed)), skipped)


async def _fetched(suite: Suite, endpoint: str) -> Path:
    """Return the folder of a suite for this server, which is written anew."""
    name = f"{suite.package}-{suite.version}"
    archive = FETCHED / f"{name}.tar.gz"
    if not archive.exists():
        FETCHED.mkdir(parents=True, exist_ok=True)
        wanted = f"{suite.package}=={suite.version}"
        output = await _program(
            *("-m", "pip", "download", "-q", "--no-deps", "--no-binary", suite.package, "-d", str(FETCHED), wanted),
            folder=ROOT,
            environment=os.environ,
        )
        if not archive.exists():
            raise RuntimeError(f"cannot fetch {wanted}:\n{output[-4000:]}")
    folder = FETCHED / f"{name}-at-{urlsplit(endpoint).port}"
    if not folder.exists():
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    for file in suite.files:
        source = folder / name / file
        source.write_text(source.read_text().replace(MOTOS_ADDRESS, endpoint))
    return folder / name


async def _program(*arguments: str, folder: Path, environment: Mapping[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=folder,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode(errors="replace")

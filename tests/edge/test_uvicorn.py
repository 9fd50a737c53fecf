"""The edge subclasses uvicorn's internals, which change without notice: only versions that were looked through are let in."""

import tomllib
from pathlib import Path

import pytest
import uvicorn
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
TESTED = "0.54.0"
WHAT_TO_CHECK = f"""uvicorn {uvicorn.__version__} is not the version the edge was tested with, {TESTED}.
Compare uvicorn's sources of both versions with what the edge takes from them:
- uvicorn/protocols/http/httptools_impl.py with app/edge/protocol.py: EdgeProtocol overrides or calls connection_made,
  connection_lost, data_received, on_message_begin, on_url, on_header, on_headers_complete, on_body, on_message_complete,
  on_response_complete, shutdown, pause_writing, resume_writing and _unset_keepalive_if_required; it reads and sets cycle (body,
  more_body, message_event, keep_alive, response_started, response_complete, scope), pipeline, flow, parser, headers, scope, url,
  expect_100_continue, timeout_keep_alive_task and connections. Its data_received, on_header, on_body and on_message_complete
  replace uvicorn's.
- uvicorn/server.py with app/edge/server.py: EdgeServer overrides serve, main_loop, capture_signals and handle_exit, calls
  on_tick, and sets should_exit and force_exit.
- uvicorn/config.py: the arguments that EdgeServerConfig passes on.
Then run tests/edge/test_edge_server.py, tests/wire/test_strangers.py and tests/wire/test_large_requests.py, set TESTED here, and
move the bounds of uvicorn in pyproject.toml."""


def uvicorn_required() -> Requirement:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [found] = [line for line in project["dependencies"] if Requirement(line).name == "uvicorn"]
    return Requirement(found)


def test_the_installed_uvicorn_is_the_one_the_edge_was_tested_with() -> None:
    assert uvicorn.__version__ == TESTED, WHAT_TO_CHECK


def test_an_installation_takes_no_later_minor_version_of_uvicorn() -> None:
    required = uvicorn_required().specifier
    major, minor, patch = map(int, TESTED.split("."))
    assert required.contains(f"{major}.{minor}.{patch + 1}")
    assert not required.contains(f"{major}.{minor - 1}.99")
    assert not required.contains(f"{major}.{minor + 1}.0"), WHAT_TO_CHECK


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt"])
def test_the_locked_uvicorn_is_inside_the_bounds(name: str) -> None:
    [line] = [line for line in (ROOT / "requirements" / name).read_text().splitlines() if line.startswith("uvicorn==")]
    assert uvicorn_required().specifier.contains(line.removeprefix("uvicorn==").split()[0])

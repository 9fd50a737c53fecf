"""Lines are JSON, carry their ids, and never a secret or a payload."""

import asyncio
import io
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import structlog

from app.telemetry import events, logs
from tests.support import poll, times_as_long

SECRET = "whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oD/Zz="
KEY = "slk_0a1b2c_Zm9vYmFyYmF6cXV1eA"


class Lines:
    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def all(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def last(self) -> dict[str, Any]:
        return self.all()[-1]


@pytest.fixture
def lines() -> Iterator[Lines]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, structlog.get_config())
    lines = Lines()
    logs.configure("info", lines.stream)
    yield lines
    root.handlers[:], root.level = before[0], before[1]
    structlog.configure(**before[2])


def test_a_line_is_json_with_time_level_event_and_the_bound_ids(lines: Lines) -> None:
    log = logs.get_logger("app.engine", replica="host-1a2b").bind(queue="mail", task="t1", attempt=2)
    log.warning("attempt_failed", trace_id="ab" * 16, correlation_id="c-9", status=503)
    line = lines.last()
    assert list(line)[:3] == ["timestamp", "level", "event"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "attempt_failed",
        "logger": "app.engine",
        "replica": "host-1a2b",
        "queue": "mail",
        "task": "t1",
        "attempt": 2,
        "trace_id": "ab" * 16,
        "correlation_id": "c-9",
        "status": 503,
    }


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_to_a_terminal_is_for_people_and_hides_the_same(lines: Lines) -> None:
    lines.stream = Terminal()
    logs.configure("info", lines.stream)
    log = logs.get_logger("app.engine", replica="host-1a2b")
    try:
        raise ValueError(SECRET)
    except ValueError:
        log.exception("attempt_failed", queue="mail", status=503, secret=SECRET)
    said = re.sub(r"\x1b\[\d*m", "", lines.text)
    assert re.match(r"\d\d:\d\d:\d\d \[error +\] attempt_failed +", said) and said.count("\n") == 1
    assert "queue=mail" in said and "status=503" in said and "ValueError" in said
    assert "replica" not in said and "app.engine" not in said and SECRET not in said


def test_context_variables_stand_on_the_line(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(correlation_id="c-1"):
        logs.get_logger("app.edge.asgi").info("request_failed")
    assert lines.last()["correlation_id"] == "c-1"


@pytest.mark.anyio
async def test_lines_of_a_request_have_its_id_and_those_of_what_it_started_do_not(lines: Lines) -> None:
    async def group() -> None:
        logs.get_logger("app.runtime.groups").info("tasks_purged")

    async def request() -> None:
        logs.name_request(b"order-7")
        await asyncio.create_task(group())
        logs.get_logger("app.edge.asgi").info("request_failed")
        await asyncio.to_thread(logs.get_logger("app.edge.asgi").info, "ready")

    await asyncio.create_task(request())
    logs.get_logger("app.edge.asgi").info("ready")
    assert [line.get("request_id") for line in lines.all()] == [None, "order-7", None, None]


def test_uvicorn_and_libraries_speak_the_same_json(lines: Lines) -> None:
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # as another server in this process may have set it
    logs.configure("info", lines.stream)
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 7)
    line = lines.last()
    assert (line["event"], line["level"], line["logger"]) == ("Started server process [7]", "info", "uvicorn.error")


def test_uvicorns_own_handlers_are_gone(lines: Lines) -> None:
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        assert not logging.getLogger(name).handlers and logging.getLogger(name).propagate


def test_libraries_that_narrate_are_quiet_at_info(lines: Lines) -> None:
    logging.getLogger("apscheduler.executors.default").info("Running job")
    assert lines.text == ""
    logging.getLogger("apscheduler.executors.default").error("Job raised")
    assert lines.last()["event"] == "Job raised"


def test_a_level_below_the_configured_one_is_not_written(lines: Lines) -> None:
    logs.get_logger("app").debug("nothing")
    logs.get_logger("app").bind(task="t").debug("nothing")
    assert lines.text == ""


def test_debug_shows_what_info_hides(lines: Lines) -> None:
    logs.configure("debug", lines.stream)
    logs.get_logger("app").debug("something")
    assert lines.last()["level"] == "debug"


def test_an_exception_becomes_a_field_without_locals(lines: Lines) -> None:
    payload = "the payload of a user"
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError:
        logs.get_logger("app").exception("loop_failed", loop="dispatcher")
    line = lines.last()
    assert line["level"] == "error"
    assert [(e["type"], e["message"]) for e in line["exception"]] == [("ValueError", "outer"), ("KeyError", "'inner'")]
    assert all("test_logs.py" in frame for e in line["exception"] for frame in e["frames"])
    assert payload not in lines.text


def test_a_library_exception_becomes_the_same_field(lines: Lines) -> None:
    try:
        raise OSError("gone")
    except OSError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    assert lines.last()["exception"][0]["type"] == "OSError"


def test_the_detail_of_a_database_error_is_not_said(lines: Lines) -> None:
    """Postgres writes `DETAIL:  Failing row contains (…)` with the whole row."""
    try:
        raise RuntimeError('violates check "x"\nDETAIL:  Failing row contains (1, {"card": 4111222233334444}).')
    except RuntimeError:
        logs.get_logger("app").exception("statement_failed")
    assert "4111222233334444" not in lines.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"secret {SECRET} of handler", "secret whsec_*** of handler"),
        (f"key {KEY}", "key slk_***"),
        (f"Authorization: Bearer {KEY}", "Authorization: ***"),
        ("authorization: Basic dXNlcjpwYXNz, accept: */*", "authorization: ***, accept: */*"),
        ("{'Authorization': 'Bearer abc.def.ghi'}", "{'Authorization': '***'}"),
        ("(b'authorization', b'Bearer abcdefghijk')", "(b'authorization', b'***')"),
        ("got Bearer abcdefghijklmno", "got Bearer ***"),
        ("postgresql://sluice:hunter2@db.internal:5432/x?sslmode=require", None),
        ("postgres://u:p@ss:w@rd@h/db", "postgres://u:***@h/db"),
        ("host=h user=u password=hunter2 dbname=x", "host=h user=u password=*** dbname=x"),
        ("password='a b c' user=u", "password=*** user=u"),
        ("https://user:pw@hooks.example/x", "https://user:***@hooks.example/x"),
        ("invalid input for query argument $3: {'card': 4111222233334444} (expected str)", None),
        ("sluice-lease-token: 0b5e-11", "sluice-lease-token: ***"),
    ],
)
def test_a_secret_is_hidden_wherever_it_stands(lines: Lines, text: str, said: str | None) -> None:
    log = logs.get_logger("app")
    log.info(text)
    log.info("x", error=text, nested={"deep": [text, (text,)]})
    log.info("x", other=ValueError(text))
    try:
        raise RuntimeError(text)
    except RuntimeError:
        log.exception("x")
    logging.getLogger("uvicorn.error").error("said %s", text)
    for hidden in (
        SECRET,
        KEY,
        "hunter2",
        "dXNlcjpwYXNz",
        "abc.def",
        "abcdefghijk",
        "p@ss",
        "rd@",
        "4111222233334444",
        ":pw@",
        "0b5e",
    ):
        assert hidden not in lines.text
    assert "a b c" not in lines.text
    if said is not None:
        assert lines.all()[0]["event"] == said
        assert lines.all()[1]["nested"]["deep"] == [said, [said]]


@pytest.mark.parametrize(
    "field", ["payload", "authorization", "Authorization", "secret", "lease_token", "headers", "body"]
)
def test_a_field_of_a_secret_name_is_hidden_whatever_it_holds(lines: Lines, field: str) -> None:
    logs.get_logger("app").info("x", **{field: {"card": "4111222233334444"}}, outer={field: "4111222233334444"})
    assert "4111222233334444" not in lines.text
    assert lines.last()[field] == "***"


def test_bytes_are_said_by_their_length_alone(lines: Lines) -> None:
    logs.get_logger("app").info("x", reply=b"payload")
    assert lines.last()["reply"] == "<7 bytes>"


def test_what_is_not_json_is_said_as_text(lines: Lines) -> None:
    logs.get_logger("app").info("x", a=float("nan"), b={1}, c="\ud800", d=object, e={"deep": None})
    line = lines.last()
    assert (line["a"], line["b"], line["c"], line["e"]) == ("nan", [1], "\ud800", {"deep": None})


def test_a_long_text_is_cut(lines: Lines) -> None:
    logs.get_logger("app").info("x", error="y" * 100_000)
    assert len(lines.last()["error"]) == logs.MAX_TEXT + 1


def test_a_text_that_would_slow_a_careless_pattern_is_redacted_in_time(lines: Lines) -> None:
    begun = time.perf_counter()
    for text in ("password" * 300, "a://" + "b:" * 1_000, "authorization " * 200, "bearer " * 300):
        logs.get_logger("app").info("x", error=text)
    assert time.perf_counter() - begun < 1.0


def test_a_value_that_contains_itself_ends(lines: Lines) -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    logs.get_logger("app").info("x", value=loop)
    assert lines.last()["event"] == "x"


def test_a_broken_stream_loses_the_line_and_nothing_else(lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    lines.stream.close()
    logs.get_logger("app").info("x", error=SECRET)
    assert capsys.readouterr().err == ""
    lines.stream = io.StringIO()


def test_a_filtered_line_costs_next_to_nothing(lines: Lines) -> None:
    log = logs.get_logger("app").bind(queue="mail")

    def nothing(event: str, **fields: object) -> None: ...

    def said(say: Callable[..., object]) -> None:
        for _ in range(2_000):
            say("x", task="t", attempt=1)

    assert times_as_long(partial(said, log.debug), partial(said, nothing)) < 10


class Flood:
    """Lines through the handler of the root logger, under a clock that stands still until it is moved."""

    def __init__(self, lines: Lines) -> None:
        self.now = 0.0
        handler = logs.LineHandler(lines.stream, lambda: self.now)
        handler.setFormatter(logs.formatter())
        logging.getLogger().handlers[:] = [handler]
        self.handler = handler


@pytest.fixture
def flood(lines: Lines) -> Flood:
    return Flood(lines)


def counted(lines: Lines, **fields: Any) -> int:
    return sum(all(line.get(name) == value for name, value in fields.items()) for line in lines.all())


def test_a_tenant_has_so_many_lines_of_an_event_a_minute_and_the_rest_is_counted(lines: Lines, flood: Flood) -> None:
    log = logs.get_logger("app.engine")
    for n in range(5_000):
        events.emit(log, events.ATTEMPT_FAILED, tenant="loud", task=str(n), outcome="failed")
    events.emit(log, events.ATTEMPT_FAILED, tenant="quiet", task="q", outcome="failed")
    events.emit(log, events.TASK_DEAD, tenant="loud", task="d", reason="attempts_exhausted")
    assert counted(lines, tenant="loud", event="attempt_failed") == logs.LINES_A_MINUTE
    assert counted(lines, tenant="quiet") == counted(lines, event="task_dead") == 1
    flood.now = 60.0
    events.emit(log, events.ATTEMPT_FAILED, tenant="loud", task="next", outcome="failed")
    left_out, last = lines.all()[-2:]
    assert (left_out["event"], left_out["level"]) == ("lines_left_out", "warning")
    assert (left_out["of"], left_out["tenant"]) == ("attempt_failed", "loud")
    assert left_out["lines"] == 5_000 - logs.LINES_A_MINUTE
    assert last["task"] == "next"
    assert counted(lines, event="lines_left_out") == 1


def test_what_libraries_say_of_strangers_is_bounded_by_the_place_that_says_it(lines: Lines, flood: Flood) -> None:
    for n in range(1_000):
        logging.getLogger("uvicorn.error").warning(f"what {n} sent is no request")
    logging.getLogger("uvicorn.error").warning("something else")
    assert len(lines.all()) == logs.LINES_A_MINUTE + 1
    flood.handler.close()
    assert lines.last()["lines"] == 1_000 - logs.LINES_A_MINUTE


def test_debug_lines_are_all_written(lines: Lines, flood: Flood) -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    for _ in range(1_000):
        logging.getLogger("app").debug("x")
    assert len(lines.all()) == 1_000


@pytest.mark.anyio
async def test_what_was_left_out_is_said_even_if_nobody_speaks_any_more(
    lines: Lines, flood: Flood, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MINUTE_SECONDS", 0.05)
    for _ in range(logs.LINES_A_MINUTE + 3):
        logs.get_logger("app").info("x")
    flood.now = 0.05
    await poll(lambda: [line["lines"] for line in lines.all() if line["event"] == "lines_left_out"] == [3])


def test_an_event_is_said_by_its_name_and_level(lines: Lines) -> None:
    events.emit(logs.get_logger("app"), events.TASK_DEAD, task="t1", reason="attempts_exhausted")
    line = lines.last()
    assert (line["event"], line["level"], line["task"]) == ("task_dead", "warning", "t1")

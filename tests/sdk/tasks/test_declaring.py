"""What can be a task or a job, and what is refused where it is declared."""

import dataclasses
import functools
import gc
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pytest

from sluice_client import (
    Context,
    DefinitionError,
    Job,
    PayloadInvalid,
    Sluice,
    SyncJob,
    SyncSluice,
    exponential,
    fixed,
    job,
)
from sluice_client.tasks.calls import Call
from sluice_client.tasks.durations import seconds_of
from sluice_client.tasks.options import fields_of
from tests.sdk.tasks import later

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers

CTX: Any = object()


@pytest.fixture
def sluice() -> Sluice:
    return Sluice("http://127.0.0.1:1")


def test_a_task_stays_the_function_that_it_is(sluice: Sluice) -> None:
    @sluice.task(queue="mail")
    def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    assert (add(1), add(1, b=5), add.__name__, add.__doc__, add.fn.__name__) == (3, 6, "add", "Adds.", "add")
    assert sluice.registry.find("add") is add.definition and sluice.registry.queues() >= {"mail"}


def test_the_payload_has_what_was_given_and_the_function_its_defaults(sluice: Sluice) -> None:
    @sluice.task(queue="q")
    def f(a: int, /, b: date, *, c: float = 0.5, ctx: Context) -> list[Any]:
        return [a, b, c, ctx]

    call = f.call(1, b=date(2026, 1, 2))
    assert call.body() == {"payload": {"a": 1, "b": "2026-01-02"}, "type": "f"}
    arguments = f.definition.arguments(call.body()["payload"])
    assert dict(arguments.values) == {"a": 1, "b": date(2026, 1, 2), "c": 0.5}
    assert f.definition.call(arguments, CTX) == [1, date(2026, 1, 2), 0.5, CTX]


def test_the_context_is_found_wherever_it_stands_and_never_asked_for(sluice: Sluice) -> None:
    def first(ctx: Context, a: int) -> Any:
        return ctx, a

    def renamed(context: Context, a: int) -> Any:
        return context, a

    def last(a: int, *, ctx: Context) -> Any:
        return ctx, a

    def default(a: int, ctx: Context = CTX) -> Any:
        return ctx, a

    def quoted(a: int, ctx: "Context") -> Any:
        return ctx, a

    def bare(a: int, *, ctx) -> Any:  # type: ignore[no-untyped-def]
        return ctx, a

    for fn in (first, renamed, last, default, quoted, bare):
        definition = sluice.task(queue="q", name=fn.__name__)(fn).definition
        assert definition.parameters == ("a",)
        assert definition.call(definition.arguments({"a": 7}), CTX) == (CTX, 7)
        with pytest.raises(TypeError, match="ctx"):
            definition.bind(7, ctx=CTX)


def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(sluice: Sluice) -> None:
    @sluice.task(queue="q")
    def f(a: int, b: list[int] | None = None) -> None: ...

    with pytest.raises(TypeError, match="f: missing a required argument: 'a'"):
        f.call()  # type: ignore[call-arg]
    with pytest.raises(PayloadInvalid) as found:
        f.call(True, [1, "2"])  # type: ignore[list-item]
    assert [error["pointer"] for error in found.value.errors] == ["/a", "/b/1"]
    with pytest.raises(PayloadInvalid) as found:
        f.definition.arguments({"b": 3, "c": 4})
    assert [error["pointer"] for error in found.value.errors] == ["/c", "/a", "/b"]
    with pytest.raises(PayloadInvalid, match="the result of f is invalid: / expected null"):
        f.definition.encode(1)


def _functions() -> dict[str, tuple[Any, str]]:
    def many(*numbers: int) -> None: ...
    def more(**options: int) -> None: ...
    def unserialisable(a: object) -> None: ...
    def result() -> Callable[[], None]: ...  # type: ignore[empty-body]
    def two(ctx: Context, other: Context) -> None: ...
    def generator() -> Any:
        yield

    async def async_generator() -> AsyncIterator[int]:
        yield 1

    class Some:
        def method(self) -> None: ...

    return {
        "many": (many, r"\*numbers has no names"),
        "more": (more, r"\*\*options has no names"),
        "unserialisable": (unserialisable, "the parameter a: object cannot become JSON"),
        "result": (result, "the result: .*cannot become JSON"),
        "two": (two, "both take the context"),
        "generator": (generator, "cannot yield"),
        "async_generator": (async_generator, "cannot yield"),
        "method": (Some.method, "a method cannot be a task"),
        "lambda": (lambda: None, "a lambda has no name"),
        "class": (Some, "a task is a function"),
        "partial": (functools.partial(many), "a task is a function"),
        "builtin": (print, "a task is a function"),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(_functions()))
def test_what_cannot_be_a_task_is_refused_where_it_is_declared(sluice: Sluice, name: str) -> None:
    fn, said = _functions()[name]
    with pytest.raises(DefinitionError, match=said):
        sluice.task(queue="q")(fn)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tires": 3}, "there is no option tires"),
        ({"queue": "no name!"}, "queue: 'no name!' is no name"),
        ({"queue": ""}, "name its queue"),
        ({"name": "x" * 256}, "1 to 255 characters"),
        ({"tries": 0}, "tries: 0 is not an integer from 1 to 1000"),
        ({"tries": True}, "tries: True"),
        ({"priority": 101}, "priority: 101"),
        ({"backoff": "1m"}, "backoff: write exponential"),
        ({"backoff": []}, "an empty list"),
        ({"timeout": "soon"}, "'soon' is not a duration"),
        ({"ttl": -1}, "must be finite and not negative"),
        ({"tags": "one"}, "tags: a list of strings"),
        ({"unique": "u:{user}"}, r"names user, which is not a parameter \(there are: a\)"),
        ({"key": "{}"}, "names no argument"),
        ({"key": "{0}"}, "names no argument"),
        ({"unique": "u:{a"}, "is not a template"),
        ({"unique": ""}, "must not be empty"),
    ],
)
def test_an_option_that_cannot_be_is_refused_where_it_is_declared(
    sluice: Sluice, options: dict[str, Any], said: str
) -> None:
    def f(a: int) -> None: ...

    with pytest.raises(DefinitionError, match=said):
        sluice.task(**{"queue": "q", **options})(f)


def test_two_tasks_of_one_name_are_refused_and_one_that_is_loaded_again_is_not(sluice: Sluice) -> None:
    first = sluice.task(queue="q")(later.twice)
    assert sluice.task(queue="q")(later.twice).definition is sluice.registry.find("twice") is not first.definition
    with pytest.raises(DefinitionError, match=r"there is a task twice already \(tests.sdk.tasks.later.twice\)"):
        sluice.task(queue="q", name="twice")(later.other)
    Sluice("http://127.0.0.1:1").task(queue="q", name="twice")(later.other)  # another Sluice, other tasks


def test_a_name_that_is_defined_later_is_resolved_when_it_is_needed(sluice: Sluice) -> None:
    assert later.takes_later.call(later.Later(3)).body()["payload"] == {"one": {"n": 3}}


def test_a_name_that_only_type_checkers_know_is_named_when_it_is_needed(sluice: Sluice) -> None:
    @sluice.task(queue="q")
    def f(amount: "OnlyForCheckers") -> None: ...

    with pytest.raises(DefinitionError, match="name 'OnlyForCheckers' is not defined; import it at run time, too"):
        f.call(1)  # type: ignore[arg-type]


def test_keys_are_made_of_arguments_defaults_included(sluice: Sluice) -> None:
    @sluice.task(queue="q", unique="{tenant}:{month:%Y-%m}", key="{tenant}")
    def f(month: date, tenant: str = "all") -> None: ...

    body = f.call(date(2026, 3, 1)).body()
    assert (body["unique_key"], body["key"]) == ("all:2026-03", "all")
    assert "key" not in f.options(key=None).call(date(2026, 3, 1)).body()  # type: ignore[arg-type]
    assert f.options(unique="x:{tenant}").call(date(2026, 3, 1)).body()["unique_key"] == "x:all"
    with pytest.raises(ValueError, match="names user"):
        f.options(unique="{user}")


def test_options_become_the_fields_of_an_enqueue() -> None:
    when = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert fields_of(
        {
            "tries": 3, "backoff": [60, "5m", timedelta(hours=1)], "timeout": "1m30s", "priority": 5, "ttl": timedelta(days=1),
            "debounce_max": "2h", "after": 0.5, "expires_at": when, "limits": ["one", {"name": "two", "cost": 3}],
            "tags": ("a",), "headers": {"x-a": "1"}, "idempotency_key": "k", "queue": "q", "unique": "u",
        }
    ) == {
        "retry": {"max_attempts": 3, "backoff": {"kind": "list", "seconds": [60, 300, 3600]}},
        "timeout_seconds": 90, "priority": 5, "ttl_seconds": 86_400, "debounce_max_seconds": 7200, "delay_seconds": 0.5,
        "expires_at": "2026-01-01T10:00:00Z", "limits": [{"name": "one"}, {"name": "two", "cost": 3}], "tags": ["a"],
        "headers": {"x-a": "1"}, "idempotency_key": "k",
    }  # fmt: skip
    assert fields_of({"backoff": fixed("1m")}) == {"retry": {"backoff": {"kind": "fixed", "seconds": 60}}}
    with pytest.raises(ValueError, match="a datetime with a time zone"):
        fields_of({"at": datetime(2026, 1, 1)})
    with pytest.raises(ValueError, match="longer than the longest"):
        exponential("2h", "1h")


def test_after_takes_the_place_of_at(sluice: Sluice) -> None:
    task = sluice.task(queue="q")(later.twice)
    body = task.options(at=datetime(2030, 1, 1, tzinfo=UTC)).options(after="5m", queue="other").call(1)
    assert (body.queue, body.body().get("run_at"), body.body()["delay_seconds"]) == ("other", None, 300)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("250ms", 0.25), ("1.5h", 5400), ("1w 2d", 777_600)]
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5x", "5m!", "-5m", float("nan"), float("inf"), True, None])
def test_what_is_no_duration(text: Any) -> None:
    with pytest.raises(ValueError, match="duration"):
        seconds_of(text)


def jobs() -> dict[str, Any]:
    class Plain(Job, queue="reports", tries=3, backoff=[60, 300], unique="r:{tenant}"):
        tenant: str
        month: date = date(2026, 1, 1)

        async def run(self, ctx: Context) -> str:
            return f"{self.tenant}{ctx}"

    class Base(Job, queue="reports", tries=3, backoff=[60, 300], unique="r:{tenant}"):
        tenant: str

    class Inherited(Base):
        month: date = date(2026, 1, 1)

        async def run(self, *, ctx: Context) -> str:
            return f"{self.tenant}{ctx}"

    @dataclasses.dataclass(slots=True, frozen=True)
    class OfDataclass(Job, queue="reports", tries=3, backoff=[60, 300], unique="r:{tenant}"):
        tenant: str
        month: date = date(2026, 1, 1)

        async def run(self, ctx: Context) -> str:
            return f"{self.tenant}{ctx}"

    class OfPydantic(
        Job, pydantic.BaseModel, queue="reports", tries=3, backoff=[60, 300], unique="r:{tenant}", frozen=True
    ):
        tenant: str
        month: date = date(2026, 1, 1)

        async def run(self, ctx: Context) -> str:
            return f"{self.tenant}{ctx}"

    @job(queue="reports", tries=3, backoff=[60, 300], unique="r:{tenant}")
    class OfMsgspec(Job, msgspec.Struct, frozen=True):
        tenant: str
        month: date = date(2026, 1, 1)

        async def run(self, ctx: Context) -> str:
            return f"{self.tenant}{ctx}"

    return {one.__name__: one for one in (Plain, Inherited, OfDataclass, OfPydantic, OfMsgspec)}


@pytest.mark.parametrize("name", ["Plain", "Inherited", "OfDataclass", "OfPydantic", "OfMsgspec"])
def test_a_job_is_the_same_whatever_makes_its_fields(name: str, sluice: Sluice) -> None:
    cls = jobs()[name]
    call: Call[str] = cls.call(tenant="acme")
    assert call.body() == {
        "payload": {"tenant": "acme", "month": "2026-01-01"},
        "type": name,
        "retry": {"max_attempts": 3, "backoff": {"kind": "list", "seconds": [60, 300]}},
        "unique_key": "r:acme",
    }
    definition = sluice.registry.find(name)
    assert definition is not None and definition is call.definition and definition.is_async
    arguments = definition.arguments({"tenant": "acme"})
    assert isinstance(arguments.instance, cls) and arguments.values["month"] == date(2026, 1, 1)
    coroutine: Any = definition.call(arguments, CTX)
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert ended.value.value == f"acme{CTX}"
    with pytest.raises(PayloadInvalid) as found:
        definition.arguments({"tenant": 3})
    assert [error["pointer"] for error in found.value.errors] == ["/tenant"]
    with pytest.raises(PayloadInvalid):
        cls.call(tenant=3)


def test_what_cannot_be_a_job_is_refused_where_it_is_declared() -> None:
    with pytest.raises(DefinitionError, match="there is no option tires"):

        class A(Job, queue="q", tires=3):
            def run(self) -> None: ...

    with pytest.raises(DefinitionError, match="run takes the context at most, not a; make them fields"):

        class B(Job, queue="q"):
            def run(self, a: int) -> None: ...

    with pytest.raises(DefinitionError, match="the field a: object cannot become JSON"):

        class C(Job, queue="q"):
            a: object

            def run(self) -> None: ...

    class NoQueue(Job):
        def run(self) -> None: ...

    with pytest.raises(DefinitionError, match="it needs a queue and a method run"):
        NoQueue.call()


def test_two_jobs_of_one_name_in_two_places_are_refused() -> None:
    with pytest.raises(DefinitionError, match="there is a task Audit already"):
        type("Audit", (Job,), {"run": later.Audit.run, "__module__": "elsewhere"}, queue="q")


@pytest.mark.anyio
async def test_a_job_asks_for_its_sluice_when_there_are_several() -> None:
    gc.collect()  # what earlier tests left
    Report = jobs()["Plain"]
    one = Sluice("http://127.0.0.1:1")
    two = Sluice("http://127.0.0.1:1")
    with pytest.raises(DefinitionError, match=r"there are \d+; name it"):
        Report.ref("id")
    await two.aclose()

    class Owned(Job, queue="q", sluice=two):
        def run(self) -> None: ...

    assert two.registry.find("Owned") is not None and one.registry.find("Owned") is None
    assert Owned.ref("id")


def test_a_blocking_job_belongs_to_a_blocking_sluice() -> None:
    blocking = SyncSluice("http://127.0.0.1:1")

    class Blocking(SyncJob, queue="q", sluice=blocking):
        n: int

        def run(self) -> int:
            return self.n

    assert blocking.registry.find("Blocking") is Blocking.call(1).definition
    assert type(Blocking.ref("id")).__name__ == "SyncTaskRef"
    blocking.close()


def test_schedules_have_what_schedules_can_have(sluice: Sluice) -> None:
    @sluice.task(queue="q", unique="u:{a}", priority=3, tries=2)
    def f(a: int) -> None: ...

    sluice.queue("q", max_concurrency=2)
    sluice.schedule("s", f.call(1), every="15m", jitter="10s", start_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert sluice.declared.document() == {
        "queues": {"q": {"max_concurrency": 2}},
        "schedules": {
            "s": {
                "queue": "q", "type": "f", "payload": {"a": 1}, "priority": 3, "retry": {"max_attempts": 2},
                "every_seconds": 900, "jitter_seconds": 10, "start_at": "2026-01-01T00:00:00Z",
            }
        },
    }  # fmt: skip
    with pytest.raises(DefinitionError, match="the schedule s is declared twice"):
        sluice.schedule("s", f.call(1), cron="@daily")
    with pytest.raises(DefinitionError, match="the queue q is declared twice"):
        sluice.queue("q")
    with pytest.raises(DefinitionError, match="one of cron, every and at"):
        sluice.schedule("t", f.call(1), cron="@daily", every=5)
    with pytest.raises(DefinitionError, match="without delay_seconds"):
        sluice.schedule("t", f.options(after=5).call(1), cron="@daily")
    with pytest.raises(DefinitionError, match="there is no option corn"):
        sluice.schedule("t", f.call(1), corn="@daily")  # type: ignore[call-arg]

"""What `@sluice.task(…)` makes of a function."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from sluice_client.api.client import Api
from sluice_client.context import Context
from sluice_client.tasks.calls import Call
from sluice_client.tasks.definitions import Definition
from sluice_client.tasks.dispatching import dispatch
from sluice_client.tasks.durations import Duration
from sluice_client.tasks.options import CALLED, CallOptions, check_options, merged
from sluice_client.tasks.refs import TaskRef

if TYPE_CHECKING:
    from typing_extensions import Never, Unpack

A = TypeVar("A")
A_contra = TypeVar("A_contra", contravariant=True)
D = ParamSpec("D")
P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
V = TypeVar("V")
Async = Coroutine[Any, Any, R]


class Task(Generic[P, R]):
    """A task that takes the arguments `P` and results in `R`."""

    def __init__(
        self, definition: Definition[R], api: Callable[[], Api], options: Mapping[str, Any] | None = None
    ) -> None:
        self.definition = definition
        self._api = api
        self._options = options or {}

    def __repr__(self) -> str:
        return f"<Task {self.name} on queue {self.definition.queue}>"

    @property
    def name(self) -> str:
        """The `type` of its tasks."""
        return self.definition.name

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Return this task with arguments, for `dispatch_many`, batches, schedules and follow-ups.

        Raises TypeError as calling the function would, and PayloadInvalid if an argument does not fit its annotation.
        """
        return Call(self.definition, self.definition.bind(*args, **kwargs), self._options)

    async def dispatch(self, *args: P.args, **kwargs: P.kwargs) -> TaskRef[R]:
        """Enqueue it with these arguments. Returns when it is stored.

        Raises what `call` raises, ApiError if the service refuses it, and ConnectionFailed if it cannot be reached.
        """
        return await dispatch(self._api(), self.call(*args, **kwargs))

    async def dispatch_after(self, delay: Duration, /, *args: P.args, **kwargs: P.kwargs) -> TaskRef[R]:
        """Enqueue it, to start so long from now at the earliest: "5m", a timedelta, or seconds. Raises as `dispatch` does."""
        return await self.options(after=delay).dispatch(*args, **kwargs)

    async def dispatch_at(self, when: datetime, /, *args: P.args, **kwargs: P.kwargs) -> TaskRef[R]:
        """Enqueue it, to start at an instant with a time zone, or after it. Raises as `dispatch` does."""
        return await self.options(at=when).dispatch(*args, **kwargs)

    def options(self, **options: Unpack[CallOptions]) -> Task[P, R]:
        """Return the same task with other options. None takes one away. Raises ValueError."""
        check_options(options, CALLED, self.definition.parameters)
        return Task(self.definition, self._api, merged(self._options, options))

    def ref(self, task_id: str) -> TaskRef[R]:
        """Return a task of this kind by its id."""
        return TaskRef(self._api(), self.definition, task_id)


class FunctionTask(Task[P, R], Generic[P, R, D, V]):
    """A task that is a function: it can still be called, with the arguments `D`, and returns `V` then."""

    def __init__(self, definition: Definition[R], api: Callable[[], Api], fn: Callable[D, V]) -> None:
        super().__init__(definition, api)
        self.fn = fn
        self.__name__: str = fn.__name__
        functools.update_wrapper(self, fn)

    def __call__(self, *args: D.args, **kwargs: D.kwargs) -> V:
        """Call the function itself, here and now. Nothing is enqueued."""
        return self.fn(*args, **kwargs)


if TYPE_CHECKING:

    class KeywordContextTask(FunctionTask[..., R, ..., V], Generic[A, R, V]):
        """A function whose context is a keyword-only argument: its first argument is checked, the others are when it runs.

        No type of Python takes a keyword-only parameter away from others (PEP 612).
        """

        @overload
        def call(self, first: A, /, *args: Any, **kwargs: Any) -> Call[R]: ...
        @overload
        def call(self, **kwargs: Any) -> Call[R]: ...
        def call(self, *args: Any, **kwargs: Any) -> Call[R]: ...

        @overload
        async def dispatch(self, first: A, /, *args: Any, **kwargs: Any) -> TaskRef[R]: ...
        @overload
        async def dispatch(self, **kwargs: Any) -> TaskRef[R]: ...
        async def dispatch(self, *args: Any, **kwargs: Any) -> TaskRef[R]: ...

    class _First(Protocol[P, R_co]):
        def __call__(self, ctx: Context, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    class _Keyword0(Protocol[R_co]):
        def __call__(self, *, ctx: Context) -> R_co: ...

    class _Keyword1(Protocol[A_contra, R_co]):
        def __call__(self, a: A_contra, /, *, ctx: Context) -> R_co: ...

    class _Keyword2(Protocol[A_contra, R_co]):
        def __call__(self, a: A_contra, b: Never, /, *, ctx: Context) -> R_co: ...

    class _Keyword3(Protocol[A_contra, R_co]):
        def __call__(self, a: A_contra, b: Never, c: Never, /, *, ctx: Context) -> R_co: ...

    class _Keyword4(Protocol[A_contra, R_co]):
        def __call__(self, a: A_contra, b: Never, c: Never, d: Never, /, *, ctx: Context) -> R_co: ...

    class _Keyword5(Protocol[A_contra, R_co]):
        def __call__(self, a: A_contra, b: Never, c: Never, d: Never, e: Never, /, *, ctx: Context) -> R_co: ...


class Decorator:
    """What `sluice.task(…)` returns. The order of its forms matters: the first that fits is taken."""

    def __init__(self, make: Callable[[Callable[..., Any]], Any]) -> None:
        self._make = make

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: _First[P, Async[R]]
    ) -> FunctionTask[P, R, Concatenate[Context, P], Async[R]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, fn: _First[P, R]
    ) -> FunctionTask[P, R, Concatenate[Context, P], R]: ...
    @overload
    def __call__(self, fn: _Keyword0[Async[R]]) -> FunctionTask[..., R, ..., Async[R]]: ...
    @overload
    def __call__(self, fn: _Keyword1[A, Async[R]]) -> KeywordContextTask[A, R, Async[R]]: ...
    @overload
    def __call__(self, fn: _Keyword2[A, Async[R]]) -> KeywordContextTask[A, R, Async[R]]: ...
    @overload
    def __call__(self, fn: _Keyword3[A, Async[R]]) -> KeywordContextTask[A, R, Async[R]]: ...
    @overload
    def __call__(self, fn: _Keyword4[A, Async[R]]) -> KeywordContextTask[A, R, Async[R]]: ...
    @overload
    def __call__(self, fn: _Keyword5[A, Async[R]]) -> KeywordContextTask[A, R, Async[R]]: ...
    @overload
    def __call__(self, fn: _Keyword0[R]) -> FunctionTask[..., R, ..., R]: ...
    @overload
    def __call__(self, fn: _Keyword1[A, R]) -> KeywordContextTask[A, R, R]: ...
    @overload
    def __call__(self, fn: _Keyword2[A, R]) -> KeywordContextTask[A, R, R]: ...
    @overload
    def __call__(self, fn: _Keyword3[A, R]) -> KeywordContextTask[A, R, R]: ...
    @overload
    def __call__(self, fn: _Keyword4[A, R]) -> KeywordContextTask[A, R, R]: ...
    @overload
    def __call__(self, fn: _Keyword5[A, R]) -> KeywordContextTask[A, R, R]: ...
    @overload
    def __call__(self, fn: Callable[P, Async[R]]) -> FunctionTask[P, R, P, Async[R]]: ...
    @overload
    def __call__(self, fn: Callable[P, R]) -> FunctionTask[P, R, P, R]: ...

    def __call__(self, fn: Callable[..., Any]) -> Any:
        """Raises DefinitionError if the function cannot be a task."""
        return self._make(fn)

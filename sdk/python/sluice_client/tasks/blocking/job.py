"""The base of tasks that are classes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Protocol, TypeVar, overload
from weakref import WeakSet

from sluice_client.api.blocking.client import SyncApi
from sluice_client.tasks.blocking.refs import SyncTaskRef
from sluice_client.tasks.blocking.task import SyncTask
from sluice_client.tasks.calls import Call
from sluice_client.tasks.durations import Duration
from sluice_client.tasks.faults import DefinitionError
from sluice_client.tasks.jobs import JobDefinition
from sluice_client.tasks.options import CallOptions, merged
from sluice_client.tasks.registry import JOBS
from sluice_client.tasks.scopes import local_names

if TYPE_CHECKING:
    from typing_extensions import Unpack, dataclass_transform
else:

    def dataclass_transform() -> Callable[[Any], Any]:
        """Only type checkers look at it (PEP 681)."""
        return lambda cls: cls


P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
OPEN: WeakSet[SyncApi] = WeakSet()
"""Those that may dispatch the jobs which belong to none."""
_OPTIONS, _TASK = "__sluice_options__", "__sluice_task__"


class _Runs(Protocol[R_co]):
    @property
    def run(self) -> Callable[..., Coroutine[Any, Any, R_co]]: ...


class _RunsInThread(Protocol[R_co]):
    @property
    def run(self) -> Callable[..., R_co]: ...


@dataclass_transform()
class SyncJob:
    """A task that is a class: `class MonthlyReport(SyncJob, queue="reports")`. Its fields are the payload, `run` does the work.

    Fields are annotated as those of a dataclass. `@dataclass` may stand before the class, and pydantic's BaseModel or msgspec's
    Struct after SyncJob among its bases; a Struct takes its options from `@job(queue="reports")`, because its class line cannot.
    A class without `run` or without a queue is a base, whose options its subclasses have.

    Jobs belong to no Sluice: each Sluice of the program runs them, and the only one, or `sluice=`, dispatches them.
    """

    __slots__ = ()
    __sluice_options__: ClassVar[dict[str, Any]] = {}
    __sluice_task__: ClassVar[SyncTask[..., Any] | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__()
        _declare(cls, options)

    @classmethod
    def __sluice_declare__(cls, options: dict[str, Any]) -> None:
        _declare(cls, options)

    # The class of `cls` is inferred from how it is called: from what it is constructed with, and from what `run` returns.
    # mypy and pyright both read it so, and both dislike that SyncJob itself has no `run`.
    @overload
    @classmethod
    def call(cls: Callable[P, _Runs[R]], *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...  # type: ignore[misc]
    @overload
    @classmethod
    def call(cls: Callable[P, _RunsInThread[R]], *args: P.args, **kwargs: P.kwargs) -> Call[R]: ...  # type: ignore[misc]
    @classmethod
    def call(cls: Any, *args: Any, **kwargs: Any) -> Any:
        """Return this job with arguments, for `dispatch_many`, batches, schedules and follow-ups. As `SyncTask.call`."""
        return task_of(cls).call(*args, **kwargs)

    @overload
    @classmethod
    def dispatch(cls: Callable[P, _Runs[R]], *args: P.args, **kwargs: P.kwargs) -> SyncTaskRef[R]: ...  # type: ignore[misc]
    @overload
    @classmethod
    def dispatch(cls: Callable[P, _RunsInThread[R]], *args: P.args, **kwargs: P.kwargs) -> SyncTaskRef[R]: ...  # type: ignore[misc]
    @classmethod
    def dispatch(cls: Any, *args: Any, **kwargs: Any) -> Any:
        """Enqueue it. As `SyncTask.dispatch`."""
        return task_of(cls).dispatch(*args, **kwargs)

    @overload
    @classmethod
    def dispatch_after(  # type: ignore[misc]
        cls: Callable[P, _Runs[R]], delay: Duration, /, *args: P.args, **kwargs: P.kwargs
    ) -> SyncTaskRef[R]: ...
    @overload
    @classmethod
    def dispatch_after(  # type: ignore[misc]
        cls: Callable[P, _RunsInThread[R]], delay: Duration, /, *args: P.args, **kwargs: P.kwargs
    ) -> SyncTaskRef[R]: ...
    @classmethod
    def dispatch_after(cls: Any, delay: Duration, /, *args: Any, **kwargs: Any) -> Any:
        """Enqueue it, to start so long from now at the earliest. As `SyncTask.dispatch_after`."""
        return task_of(cls).dispatch_after(delay, *args, **kwargs)

    @overload
    @classmethod
    def dispatch_at(  # type: ignore[misc]
        cls: Callable[P, _Runs[R]], when: datetime, /, *args: P.args, **kwargs: P.kwargs
    ) -> SyncTaskRef[R]: ...
    @overload
    @classmethod
    def dispatch_at(  # type: ignore[misc]
        cls: Callable[P, _RunsInThread[R]], when: datetime, /, *args: P.args, **kwargs: P.kwargs
    ) -> SyncTaskRef[R]: ...
    @classmethod
    def dispatch_at(cls: Any, when: datetime, /, *args: Any, **kwargs: Any) -> Any:
        """Enqueue it, to start at an instant or after it. As `SyncTask.dispatch_at`."""
        return task_of(cls).dispatch_at(when, *args, **kwargs)

    @overload
    @classmethod
    def options(cls: Callable[P, _Runs[R]], **options: Unpack[CallOptions]) -> SyncTask[P, R]: ...  # type: ignore[misc]
    @overload
    @classmethod
    def options(cls: Callable[P, _RunsInThread[R]], **options: Unpack[CallOptions]) -> SyncTask[P, R]: ...  # type: ignore[misc]
    @classmethod
    def options(cls: Any, **options: Any) -> Any:
        """Return this job with other options. As `SyncTask.options`."""
        return task_of(cls).options(**options)

    @overload
    @classmethod
    def ref(cls: Callable[..., _Runs[R]], task_id: str) -> SyncTaskRef[R]: ...  # type: ignore[misc]
    @overload
    @classmethod
    def ref(cls: Callable[..., _RunsInThread[R]], task_id: str) -> SyncTaskRef[R]: ...  # type: ignore[misc]
    @classmethod
    def ref(cls: Any, task_id: str) -> Any:
        """Return a task of this kind by its id."""
        return task_of(cls).ref(task_id)


def task_of(cls: Any) -> SyncTask[..., Any]:
    """Return the task that a job class is. Raises DefinitionError for a base of jobs."""
    task: SyncTask[..., Any] | None = vars(cls).get(_TASK)
    if task is None:
        raise DefinitionError(
            f"{cls.__module__}.{cls.__qualname__} is not a job: it needs a queue and a method run, and SyncJob must be the first of"
            " its bases"
        )
    return task


def only_sluice() -> SyncApi:
    """Return the Sluice of this program. Raises DefinitionError if there are several, or none."""
    found = list(OPEN)
    if len(found) != 1:
        raise DefinitionError(
            f"a job is dispatched by the one Sluice of its program, and there are {len(found)}; name it, as in"
            " class Report(SyncJob, sluice=sluice, ...)"
            if found
            else "a job is dispatched by the Sluice of its program: create one first, as in sluice = SyncSluice()"
        )
    return found[0]


def _declare(cls: type[SyncJob], options: dict[str, Any]) -> None:
    """Make a class a task, if it has all that a task needs. A second class in its place, as `@dataclass(slots=True)` makes one,
    has the options of the first."""
    own: dict[str, Any] = options or vars(cls).get(_OPTIONS, {})
    setattr(cls, _OPTIONS, own)
    every: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        inherited = {
            name: value for name, value in vars(base).get(_OPTIONS, {}).items() if base is cls or name != "name"
        }
        every = merged(every, inherited)
    name, sluice = every.pop("name", None), every.pop("sluice", None)
    if not every.get("queue") or not hasattr(cls, "run"):
        return
    definition: JobDefinition[Any] = JobDefinition(cls, SyncJob, every, name=name, names=local_names(cls.__module__))
    registry = JOBS if sluice is None else sluice.registry
    registry.add(definition)
    setattr(cls, _TASK, SyncTask(definition, only_sluice if sluice is None else lambda: sluice))

"""The blocking form of what is written for an event loop, by exchanging words."""

import re

WORDS = {
    "async def": "def",
    "async for": "for",
    "async with": "with",
    "asyncio": "time",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "aclose": "close",
    "aread": "read",
    "asynccontextmanager": "contextmanager",
    "AsyncIterator": "Iterator",
    "AsyncClient": "Client",
    "AsyncBaseTransport": "BaseTransport",
    "PerLoop": "PerProcess",
    "sluice_client.per_loop": "sluice_client.per_process",
    "Api": "SyncApi",
    "class Sluice": "class SyncSluice",
    "sluice = Sluice": "sluice = SyncSluice",
    "Task": "SyncTask",
    "FunctionTask": "SyncFunctionTask",
    "KeywordContextTask": "SyncKeywordContextTask",
    "TaskRef": "SyncTaskRef",
    "Job": "SyncJob",
    "Batch": "SyncBatch",
    "Worker": "SyncWorker",
    "ApiT": "SyncApiT",
    "Transport": "SyncTransport",
    "sluice_client.transport": "sluice_client.sync_transport",
    "of this event loop": "of this process",
    "Event loops and threads may share it: each event loop gets connections of its own.": "Threads may share it.",
}
KEPT = ("parameters", "replies")
"""Files of `api/` that both forms use."""
WAITING = ("batches", "dispatching", "job", "refs", "task")
"""Files of `tasks/` that wait for the service; both forms use the others."""

_WORDS = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(WORDS, key=len, reverse=True)))})(?!\w)")
_TASKS = re.compile(rf"sluice_client\.tasks\.(?=(?:{'|'.join(WAITING)})\b)")
_ROOM = re.compile(rf"sluice_client\.api\.(?!(?:{'|'.join(KEPT)})\b)")


def blocking(source: str) -> str:
    """Return the source of the blocking form."""
    words = _WORDS.sub(lambda found: WORDS[found[0]], source)
    rooms = _ROOM.sub("sluice_client.api.blocking.", words.replace("await ", ""))
    return _TASKS.sub("sluice_client.tasks.blocking.", rooms)

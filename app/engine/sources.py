"""Who receives: every replica that dispatches has one receiver per source, started and stopped here as definitions change."""

import asyncio
from functools import partial

from app.engine.receiver import Receiver
from app.runtime.core import Core
from app.sources.kinds import Source
from app.store import sources
from app.store.sources import SourceRow


class Sources:
    """A loop of the engine (`tick`). The engine's poll wakes it while there are sources or receivers (`any`)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._receivers: dict[int, Receiver] = {}
        self._stopping = False
        self._pruned = False

    async def tick(self) -> None:
        """Start and stop receivers. One whose definition has changed begins when the old one has ended."""
        if not self._pruned:
            await sources.prune(self._core.db)
            self._pruned = True
        versions = await sources.running(self._core.db)
        for source_id, receiver in list(self._receivers.items()):
            if receiver.ended:
                del self._receivers[source_id]
            elif versions.get(source_id) != receiver.row.version:
                receiver.stop(dropping=True)
        for source_id in versions.keys() - self._receivers.keys():
            row = await sources.find_by_id(self._core.db, self._core.vault, source_id)
            if row is not None and not row.view.paused and not self._stopping:
                receiver = self._receivers[source_id] = Receiver(self._core, row, partial(self._open, row))
                receiver.start()

    def _open(self, row: SourceRow) -> Source:
        definition = row.view.definition
        return self._core.sources.of(definition).open(definition, self._core.replica.name, row.tenant)

    def stop(self) -> None:
        """Receive no more; what is under way is finished."""
        self._stopping = True
        for receiver in self._receivers.values():
            receiver.stop()

    @property
    def any(self) -> bool:
        """Whether there are receivers, of which one may have to stop."""
        return bool(self._receivers)

    @property
    def receiving(self) -> bool:
        """Whether a receive is under way."""
        return any(receiver.receiving for receiver in self._receivers.values())

    def give_up(self) -> None:
        """Wait for nothing any longer: the process ends. What was being received comes again."""
        for receiver in self._receivers.values():
            receiver.give_up()

    async def stopped(self) -> None:
        """Return when every receive under way has ended, and what it brought is enqueued or given back."""
        await asyncio.gather(*(receiver.stopped() for receiver in self._receivers.values()))

"""One life of the server: what it holds in memory, and the worker that runs its prompts."""

import asyncio
import contextlib
from concurrent.futures import Executor as Threads
from typing import Any

from .executor import Executor, Outcome
from .files import Files
from .frame_faults import FrameFaults
from .graph import NodeNotFound
from .inventory import Inventory
from .life import Life
from .messages import Hub
from .models import Shelf
from .node_faults import NodeFaults
from .prompts import History, Item, PromptQueue
from .record import Execution, Record
from .settings import SimulatorSettings


class Engine:
    """Born with a start, gone with a death: nothing of it survives."""

    def __init__(
        self,
        *,
        settings: SimulatorSettings,
        files: Files,
        inventory: Inventory,
        record: Record,
        frame_faults: FrameFaults,
        node_faults: NodeFaults,
        gate: asyncio.Event,
        threads: Threads,
    ) -> None:
        self.settings = settings
        self.files = files
        self.inventory = inventory
        self.record = record
        self.life = Life(gate)
        self.hub = Hub(frame_faults, record, gate)
        self.queue = PromptQueue(self._queue_changed)
        self.history = History(settings.history_size)
        self.shelf = Shelf(settings, record, self.life.pause)
        self.executor = Executor(
            settings=settings,
            inventory=inventory,
            files=files,
            hub=self.hub,
            shelf=self.shelf,
            faults=node_faults,
            record=record,
            threads=threads,
            life=self.life,
        )
        self.number = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.takes_prompts = asyncio.Event()
        self.takes_prompts.set()
        self._free: dict[str, bool] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._running: Execution | None = None

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self.hub.publish()), asyncio.create_task(self._work())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._running is not None:
            self._running.outcome = "killed"
        self.hub.abort()

    def queue_info(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": len(self.queue)}}

    def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """Takes effect when the worker is between two prompts."""
        if unload_models:
            self._free["models"] = True
        if free_memory:
            self._free["memory"] = True
        self.queue.wake.set()

    def interrupt(self, prompt_id: str | None) -> bool:
        """Ask the running prompt to stop, if it is this one (or whichever, without an id)."""
        running = self.queue.running
        if prompt_id is not None and (running is None or running.prompt_id != prompt_id):
            return False
        self.life.interrupt = True
        return running is not None

    def _queue_changed(self) -> None:
        self.record.queue_length(len(self.queue))
        if len(self.queue):
            self.idle.clear()
        self.hub.send("status", {"status": self.queue_info()})

    async def _work(self) -> None:
        while True:
            await self.takes_prompts.wait()
            await self.life.pause()
            item = self.queue.take()
            if item is None:
                self._apply_free()
                if not len(self.queue):
                    self.idle.set()
                self.queue.wake.clear()
                await self.queue.wake.wait()
                continue
            try:
                outcome = await self._run(item)
            except NodeNotFound:
                return  # of this the real worker dies too: its prompt stays in the queue, HTTP answers on
            self._finish(item, outcome)
            self._apply_free()
            if not self.queue.waiting:
                await self._clean_up(item)
            else:
                self._say_over(item)
                await asyncio.sleep(self.settings.seconds_between_prompts)

    async def _run(self, item: Item) -> Outcome:
        self.life.client_id = item.client_id
        self._running = self.record.start(item.prompt_id, item.client_id)
        outcome = await self.executor.run(item)
        self._running.ended = asyncio.get_running_loop().time()
        self._running.outcome = outcome.status
        self._running = None
        return outcome

    def _finish(self, item: Item, outcome: Outcome) -> None:
        """From the queue into history in one step, so that nobody finds the prompt in neither."""
        entry = {
            "prompt": item.as_list(),
            "outputs": outcome.outputs,
            "status": {
                "status_str": "success" if outcome.status == "success" else "error",
                "completed": outcome.status == "success",
                "messages": outcome.messages,
            },
            "meta": outcome.meta,
        }
        self.history.add(item.prompt_id, entry)
        self.queue.release()

    def _say_over(self, item: Item) -> None:
        if item.client_id is not None:
            over = {"node": None, "prompt_id": item.prompt_id}
            self.hub.send("executing", over, item.client_id)

    async def _clean_up(self, item: Item) -> None:
        """The queue is empty: the worker cleans its memory, and what comes meanwhile waits."""
        if self.settings.cleanup_seconds > 0:
            await asyncio.sleep(self.settings.cleanup_seconds)
        self._say_over(item)

    def _apply_free(self) -> None:
        flags, self._free = self._free, {}
        if flags.get("models") or flags.get("memory"):
            self.shelf.unload()
        if flags.get("memory"):
            self.executor.cache.clear()

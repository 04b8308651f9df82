"""Runs one prompt: what is cached, in which order, what history says of it."""

import asyncio
import dataclasses
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Executor as Threads
from typing import Any

from .cache import Cache
from .files import Files
from .graph import Schedule, is_link, signatures
from .inventory import Inventory, NodeClass
from .life import Life
from .messages import JPEG, PNG, Hub
from .models import Shelf
from .node_faults import NodeFaults
from .nodes import Call, NodeFailure, find
from .nodes.base import Surroundings, check_keywords
from .nodes.saving import entry
from .prompts import Item
from .record import Record
from .reporting import Report
from .settings import SimulatorSettings
from .validation import CHECKED_FILES, TRACEBACK
from .values import Result

NEVER_CACHED = frozenset({"SaveImageWebsocket"})
OOM_TIPS = (
    "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you might "
    "have accidentally set the batch_size to a large number."
)


class Interrupted(Exception):
    """Somebody asked to stop the running prompt."""


class NodeError(Exception):
    """A node failed; carries what the clients are told."""

    def __init__(self, node: str, exception_type: str, message: str, inputs: dict[str, Any]) -> None:
        super().__init__(message)
        self.node = node
        self.exception_type = exception_type
        self.message = message
        self.inputs = inputs


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What goes into history."""

    status: str
    """success, error or interrupted"""
    messages: list[Any]
    outputs: dict[str, Any]
    meta: dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Executor:
    """Runs prompts one after the other."""

    settings: SimulatorSettings
    inventory: Inventory
    files: Files
    hub: Hub
    shelf: Shelf
    faults: NodeFaults
    record: Record
    threads: Threads
    life: Life
    cache: Cache = dataclasses.field(default_factory=Cache)

    async def run(self, item: Item) -> Outcome:
        return await _Run(self, item).execute()


class _Run:
    """One execution of one prompt."""

    def __init__(self, executor: Executor, item: Item) -> None:
        self._x = executor
        self._item = item
        self._graph = item.graph
        self._report = Report(executor.hub, item)
        self._told: dict[str, Result] = {}
        self._executed: list[str] = []
        self._node = ""
        self._signatures: Mapping[str, str] = {}
        self._started = time.monotonic()

    async def execute(self) -> Outcome:
        self._x.life.interrupt = False
        self._report.tell("execution_start", {"prompt_id": self._item.prompt_id})
        await self._sign()
        self._x.cache.keep_for(self._graph, self._signatures)
        cached = [n for n in self._graph if self._is_cached(n)]
        self._report.tell("execution_cached", {"nodes": cached, "prompt_id": self._item.prompt_id})
        status = await self._to_the_end()
        self._x.life.current_node = None
        meta = {
            node: {"node_id": by, "display_node": by, "parent_node": None, "real_node_id": by}
            for node, by in ((node, result.made_by) for node, result in self._told.items())
        }
        outputs = {node: result.ui for node, result in self._told.items()}
        return Outcome(status, self._report.messages, outputs, meta)

    async def _to_the_end(self) -> str:
        try:
            await self._nodes()
            await self._fill_time()
        except Interrupted:
            self._report.tell("execution_interrupted", self._about(self._node), broadcast=True)
            return "interrupted"
        except NodeError as error:
            about = self._about(error.node) | {
                "exception_message": error.message,
                "exception_type": error.exception_type,
                "traceback": TRACEBACK,
                "current_inputs": error.inputs,
                "current_outputs": list(self._graph),
            }
            self._report.tell("execution_error", about)
            return "error"
        self._report.tell("execution_success", {"prompt_id": self._item.prompt_id})
        return "success"

    async def _nodes(self) -> None:
        schedule = Schedule(self._graph, lambda n: self._class(n).output_node, self._is_cached)
        for output in self._item.outputs:
            schedule.add(output)
        while schedule:
            node = schedule.next()
            if node is None:
                first = next(iter(self._graph))
                raise NodeError(first, "graph.DependencyCycleError", "Dependency cycle detected", {})
            cached = self._x.cache.results.get(self._signatures[node])
            if cached is not None:
                self._answer_from_cache(node, cached)
            else:
                await self._run_node(node, last=schedule.left == 1)
            schedule.done(node)

    def _answer_from_cache(self, node: str, cached: Result) -> None:
        self._report.executed(node, cached.ui)
        # Without a client the newer version leaves cached outputs out of the history.
        told = self._item.client_id is not None or self._x.settings.protocol == "0.3.64"
        if cached.ui is not None and told:
            self._told[node] = cached
        self._report.finished(node)

    async def _run_node(self, node: str, *, last: bool) -> None:
        self._node = node
        self._report.started(node)
        if self._item.client_id is not None:
            self._x.life.current_node = node
        self._report.executing(node)
        name = self._class(node).name
        result = self._x.faults.told(name, dataclasses.replace(await self._call(node), made_by=node))
        if last:  # the last node takes the time that is left: servers succeed right after its `executed`
            await self._fill_time()
        if result.ui is not None:
            self._told[node] = result
            self._report.executed(node, result.ui)
        for number in range(self._x.faults.flooded(name)):
            self._report.executed(node, {"images": [entry(f"{number}.png", "", "output")]})
        if name not in NEVER_CACHED:
            self._x.cache.results[self._signatures[node]] = result
        self._report.finished(node)
        self._executed.append(node)

    async def _call(self, node: str) -> Result:
        x, node_class = self._x, self._class(node)
        given = self._graph[node]["inputs"]
        inputs = {k: self._resolve(v) for k, v in given.items() if k in node_class.inputs or is_link(v)}
        x.record.nodes_run[node_class.name] += 1
        try:
            await x.life.pause()
            self._check()
            x.faults.before(node_class.name)
            check_keywords(node_class, inputs)
            return await find(node_class.name)(Call(node, node_class, inputs, self._surroundings()))
        except Interrupted:
            raise
        except NodeFailure as failure:
            tips = ""
            if failure.exception_type.endswith("OutOfMemoryError"):
                x.shelf.unload()
                tips = OOM_TIPS
            shown = self._shown(node_class, inputs)
            raise NodeError(node, failure.exception_type, f"{failure}\n{tips}", shown) from failure
        except Exception as failure:  # whatever a node does wrong is an answer, not the end of the server
            kind = type(failure)
            name = (
                kind.__qualname__
                if kind.__module__ == "builtins"
                else f"{kind.__module__}.{kind.__qualname__}"
            )
            raise NodeError(node, name, f"{failure}\n", self._shown(node_class, inputs)) from failure

    def _surroundings(self) -> Surroundings:
        x = self._x
        fixed = x.settings.seconds_per_prompt
        return Surroundings(
            settings=x.settings,
            files=x.files,
            shelf=x.shelf,
            threads=x.threads,
            graph=self._graph,
            extra_pnginfo=self._item.extra_data.get("extra_pnginfo"),
            step=self._step,
            previews=self._wants_previews(),
            seconds_left=lambda: None if fixed is None else fixed - (time.monotonic() - self._started),
            temp_suffix=lambda: x.cache.temp_suffix(self._node, self._class(self._node).name),
        )

    def _wants_previews(self) -> bool:
        asked = self._item.extra_data.get("preview_method")
        if self._x.settings.protocol == "0.8.0" and asked in {"none", "auto", "latent2rgb", "taesd"}:
            return bool(asked != "none")
        return self._x.settings.previews

    async def _step(
        self,
        value: int,
        maximum: int,
        preview: Callable[[], bytes] | None = None,
        *,
        seconds: float = 0.0,
        result: bytes | None = None,
    ) -> None:
        x = self._x
        if seconds > 0:
            await asyncio.sleep(seconds)
        await x.life.pause()
        await x.faults.unstalled()
        self._check()
        picture, kind = result, PNG
        if preview is not None:
            picture, kind = await asyncio.get_running_loop().run_in_executor(x.threads, preview), JPEG
        self._report.step(self._node, value, maximum, picture, kind)

    async def _fill_time(self) -> None:
        """With a fixed time a prompt, wait for its end; a prompt that ran nothing ends at once."""
        fixed = self._x.settings.seconds_per_prompt
        if fixed is not None and self._node:
            left = fixed - (time.monotonic() - self._started)
            if left > 0:
                await asyncio.sleep(left)
            self._check()

    async def _sign(self) -> None:
        changed: dict[str, str] = {}
        for node, content in self._graph.items():
            name = content["class_type"]
            if name in NEVER_CACHED:
                changed[node] = uuid.uuid4().hex
            elif name in CHECKED_FILES and isinstance(
                file := content["inputs"].get(CHECKED_FILES[name]), str
            ):
                changed[node] = await asyncio.get_running_loop().run_in_executor(
                    self._x.threads, self._x.files.content_hash, file
                )
        self._signatures = signatures(self._graph, lambda node: changed.get(node, ""))

    def _check(self) -> None:
        if self._x.life.interrupt:
            self._x.life.interrupt = False
            raise Interrupted

    def _class(self, node: str) -> NodeClass:
        return self._x.inventory.classes[self._graph[node]["class_type"]]

    def _is_cached(self, node: str) -> bool:
        return self._signatures.get(node) in self._x.cache.results

    def _resolve(self, value: Any) -> Any:
        if not is_link(value):
            return value
        result = self._x.cache.results.get(self._signatures[value[0]])
        slot = int(value[1])  # of an input that the class does not have, nobody checked it
        return result.outputs[slot] if result is not None and slot < len(result.outputs) else None

    def _shown(self, node_class: NodeClass, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs as an error tells them: lists, everything that is no plain value as text."""
        shown = {
            k: [v if v is None or isinstance(v, (int, float, str)) else str(v)] for k, v in inputs.items()
        }
        hidden = node_class.info["input"].get("hidden", {})
        if "prompt" in hidden:
            shown["prompt"] = [str(self._graph)]
        if "extra_pnginfo" in hidden:
            extra = self._item.extra_data.get("extra_pnginfo")
            shown["extra_pnginfo"] = [None if extra is None else str(extra)]
        return shown

    def _about(self, node: str) -> dict[str, Any]:
        return {
            "prompt_id": self._item.prompt_id,
            "node_id": node,
            "node_type": self._class(node).name,
            "executed": list(self._executed),
        }

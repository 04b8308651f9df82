"""One attempt on one backend: posted, followed by the socket, judged by queue and history.

The socket tells early; `look` (queue first, then history) decides whenever the socket may have missed
something. A prompt is posted once: a POST whose answer never came is settled by looking it up.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import structlog

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import (
    AnswerInvalid,
    AnswerTooLarge,
    BackendError,
    BadAnswer,
    DuplicatePrompt,
    PromptRefused,
    Unreachable,
    job_error,
)
from comfy_api_service.comfyui.message_types import (
    Cached,
    Failed,
    Interrupted,
    Message,
    NodeStarted,
    Output,
    PreviewFrame,
    Started,
    Stepped,
    Succeeded,
)
from comfy_api_service.comfyui.views import Outcome, QueueView
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.job import State
from comfy_api_service.worker.assignment import Assignment
from comfy_api_service.worker.collect import Collected
from comfy_api_service.worker.progress import ProgressMeter, Teller
from comfy_api_service.worker.reporter import Reporter
from comfy_api_service.worker.verdict import (
    Broke,
    Declined,
    Fenced,
    Lost,
    Produced,
    Stopped,
    Untrue,
    Verdict,
    Why,
    from_history,
    in_order,
)

log = structlog.get_logger()

POST_GRACE_SECONDS: Final = 5.0
"""How long a prompt whose POST got no answer may stay out of sight before it counts as never sent."""
ASK_AGAIN_SECONDS: Final = 1.0
"""An interrupt takes effect at the next sampling step: it is asked again until it did."""
RESTARTED: Final = "backend restarted"
INVALID_LOOKS: Final = 5
"""Looks in a row at a history that is none: asking on would end nowhere."""
MOST_OUTPUTS: Final = 4096
"""Messages of outputs that are kept of one prompt; no graph has as many nodes."""
LOST_GRACE_LOOKS: Final = 2
"""Looks in a row that must miss a prompt: its history is written just after it left the queue."""


@dataclass(slots=True)
class Watch:
    """What is known of a prompt's stay on the backend; monotonic seconds."""

    sending: bool = False
    """The POST is on its way, or about to be: the prompt may arrive at any moment."""
    posted: bool = False
    """The backend is known to have the prompt."""
    unanswered_at: float | None = None
    """When the POST ended without an answer that tells."""
    refused: bool = False
    """The POST was answered with an error of the server's."""
    started_at: float | None = None
    heard_at: float = 0.0
    looked_at: float = 0.0
    untold: bool = False
    """The socket said less than it should: history is asked at the next look."""
    pending_since: float | None = None
    """Since when it waits in a queue where nothing runs."""
    nothing_since: float | None = None
    """Since when it is said to run and no node does: the first one follows `execution_cached` at once."""
    blocked_since: float | None = None
    """Since when it waits behind prompts that are none of ours."""
    missed: int = 0
    invalid: int = 0


@dataclass(frozen=True, slots=True)
class Fetching:
    """Outputs on their way to the store."""

    outputs: Sequence[Output]
    keys: list[str]
    """What stands in the store until now."""
    task: asyncio.Task[Collected]


class Run:
    """An attempt while a backend has it."""

    def __init__(
        self,
        assignment: Assignment,
        client: ComfyClient,
        reporter: Reporter,
        clock: Clock,
        *,
        promised: tuple[str, ...],
        graph: Graph,
        link: int | None,
        on_outputs: Callable[["Run"], None],
        on_started: Callable[["Run"], Awaitable[bool]],
        on_refused: Callable[[Assignment, PromptRefused], Lost | None] = lambda _, __: None,
        adopted: bool = False,
    ) -> None:
        """`link`: the socket connection that all of its events will come by; None if there is none.

        `adopted`: an earlier process posted it, under a client id of its own: only queue and history tell of it.
        `on_outputs` is called when an unbroken socket has told of every output that the graph promised.
        `on_started` writes the start; False if the attempt was replaced. `on_refused` may know that the backend
        lacks what it had: then the job waits again, instead of failing.
        """
        self.assignment = assignment
        self.link = link
        self.adopted = adopted
        self.watch = Watch(heard_at=clock.monotonic(), sending=not adopted)
        self.halt = asyncio.Event()
        """Set when the job is to end although its prompt already has."""
        self.verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.why: Why | None = None
        self.fetching: Fetching | None = None
        self.cached: frozenset[str] = frozenset()
        self._client = client
        self._reporter = reporter
        self._clock = clock
        self.graph = graph
        self._promised = promised
        self._outputs: list[Output] = []
        self._meter = ProgressMeter(graph)
        self._on_outputs = on_outputs
        self._on_started = on_started
        self._on_refused = on_refused
        self._teller = Teller(lambda: reporter.progress(self.assignment, self._meter.progress()))
        self._marked: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        if adopted:
            self._take_up(clock.monotonic(), clock.now())

    def _take_up(self, now: float, wall: float) -> None:
        """What the rows say of an adopted attempt, on this process's clock.

        How long it has run is counted from now: only the wall clock could tell more, and that may have been set.
        """
        assignment = self.assignment
        self.watch.unanswered_at = now - min(max(wall - assignment.dispatched_at, 0.0), POST_GRACE_SECONDS)
        if assignment.state is not State.DISPATCHED:
            self.watch.posted = True
            self.watch.started_at = now

    @property
    def prompt_id(self) -> str:
        return self.assignment.prompt_id

    def end(self, verdict: Verdict) -> None:
        """The first verdict stands."""
        if not self.verdict.done():
            self.verdict.set_result(verdict)
            self._teller.close()

    async def post(self, body: bytes | None = None) -> None:
        """Send the prompt, unless it is to stop already. Ends the run if the backend declined or was not reached."""
        try:
            if not self.verdict.done() and self.why is None:
                await self._send(body)
        finally:
            self.watch.sending = False
            if not self.watch.posted:
                self.watch.unanswered_at = self._clock.monotonic()
        unwanted = self.verdict.done() and isinstance(self.verdict.result(), Stopped | Lost)
        if unwanted and self.watch.posted:
            await self.remove()

    async def _send(self, body: bytes | None) -> None:
        try:
            await self._client.submit(
                prompt_id=self.prompt_id,
                client_id=self.assignment.client_id,
                graph=self.graph,
                body=body,
            )
        except PromptRefused as refused:
            if refused.partly:
                await self.remove()
            self.end(self._on_refused(self.assignment, refused) or Declined(job_error(refused)))
        except DuplicatePrompt:
            self.watch.posted = True
        except Unreachable:
            self.end(Lost("backend unreachable", unsent=True))
        except BackendError as fault:
            self.watch.refused = isinstance(fault, BadAnswer) and fault.status is not None
            log.warning("prompt_unanswered", job_id=self.assignment.job_id, reason=type(fault).__name__)
        else:
            self.watch.posted = True

    async def remove(self) -> None:
        """Take the prompt off the backend, as far as it can be reached: out of the queue, or interrupted."""
        with contextlib.suppress(BackendError):
            if await self._client.cancel(self.prompt_id):
                return
            await self._client.delete_pending([self.prompt_id])
            await self._client.interrupt(self.prompt_id)

    # --- what the socket tells -------------------------------------------------------------------------

    def on_message(self, message: Message) -> None:
        """Take in a message of this prompt; synchronous, since the next one waits."""
        now = self._clock.monotonic()
        self.watch.heard_at = now
        self.watch.posted = True
        self.watch.nothing_since = now if isinstance(message, Cached) else None
        match message:
            case Started():
                self._started(now)
            case Cached(nodes=nodes):
                self.cached = frozenset(nodes)
            case NodeStarted(node=node):
                self._started(now)
                self._meter.node_started(node, now)
                self._teller.heard()
            case Stepped(node=node, value=value, maximum=maximum):
                self._meter.stepped(node, value, maximum)
                self._teller.heard(last=value >= maximum)
            case Output():
                self._given(message, now)
            case PreviewFrame(media_type=media_type, picture=picture):
                if self._announced:
                    self._reporter.preview(self.assignment, media_type, picture)
            case Succeeded():
                self._succeeded(now)
            case Failed():
                self.end(Broke(message, self._seconds(now)))
            case Interrupted():
                self.end(Stopped(self._seconds(now)))
            case _:
                pass

    def _given(self, output: Output, now: float) -> None:
        if self.graph and output.node not in self.graph:
            self.end(
                Untrue("The backend gave outputs of a node that the graph does not have.", self._seconds(now))
            )
        elif len(self._outputs) >= MOST_OUTPUTS:
            self.end(Untrue("The backend gave more outputs than any graph has.", self._seconds(now)))
        elif output not in self._outputs:  # frames were seen twice; a node may give several outputs
            self._outputs.append(output)
            if self._complete:
                self._on_outputs(self)

    def _started(self, now: float) -> None:
        if self.watch.started_at is None:
            self.watch.started_at = now
        if self._marked is None:
            self._marked = asyncio.create_task(self._mark_started())

    async def _mark_started(self) -> None:
        if self.assignment.state is State.DISPATCHED and not await self._on_started(self):
            self.end(Fenced())
        elif not self.verdict.done():
            self._teller.open()

    async def marked(self) -> None:
        """Wait until the start is written, if one was seen; the end must not overtake it."""
        if self._marked is not None:
            await asyncio.wait((self._marked,))

    def _succeeded(self, now: float) -> None:
        """All outputs of an unbroken socket are the result; with any gap, `look` will find them in history."""
        if not self._complete:
            self.watch.untold = True
            return
        self.end(Produced(self.outputs, self.cached, self._seconds(now)))

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the socket told of, in the order of the graph."""
        return in_order(self._outputs, self._promised)

    @property
    def _complete(self) -> bool:
        """Whether an unbroken socket told of every output that was promised."""
        return self.link is not None and set(self._promised) <= {output.node for output in self._outputs}

    def gap(self) -> None:
        """The socket broke: what it told until now may not be all."""
        self.link = None
        self.watch.nothing_since = None

    def _seconds(self, now: float) -> float | None:
        return None if self.watch.started_at is None else now - self.watch.started_at

    @property
    def _announced(self) -> bool:
        """Progress and previews are told only after the start was: listeners first hear `running`."""
        return self._marked is not None and self._marked.done()

    @property
    def load_seconds(self) -> Mapping[str, float]:
        """How long nodes took that load models, by node id."""
        return self._meter.load_seconds

    # --- what queue and history tell -------------------------------------------------------------------

    async def look(self, queue: QueueView) -> None:
        """Judge by a queue that was just read, then by history; in this order, or the end could be missed."""
        now = self._clock.monotonic()
        self.watch.looked_at = now
        if self.verdict.done():
            return
        if any(item.prompt_id == self.prompt_id for item in queue.running):
            self.watch.posted, self.watch.missed, self.watch.pending_since = True, 0, None
            self._started(now)
            return
        if any(item.prompt_id == self.prompt_id for item in queue.pending):
            self.watch.posted, self.watch.missed = True, 0
            if queue.running:
                self.watch.pending_since = None
            elif self.watch.pending_since is None:
                self.watch.pending_since = now
            return
        try:
            entry = await self._client.history(self.prompt_id)
        except AnswerTooLarge:
            self.end(Untrue("The backend told more of the prompt than is read.", self._seconds(now)))
            return
        except AnswerInvalid:
            self.watch.invalid += 1
            if self.watch.invalid >= INVALID_LOOKS:
                self.end(Untrue("The backend's history of the prompt cannot be read.", self._seconds(now)))
            raise
        self.watch.invalid = 0
        if entry is not None:
            if entry.outcome is Outcome.SUCCESS or entry.started_at is not None:
                self._started(now)
            self.end(from_history(entry, self._promised, self.graph, self._free))
            return
        self._missing(now)

    @property
    def _free(self) -> frozenset[tuple[str, str]]:
        """Inputs that stand for files, which have other names on each backend."""
        return frozenset((one.node_id, one.input) for one in self.assignment.inputs)

    def _missing(self, now: float) -> None:
        """Neither in the queue nor in history."""
        if self.watch.sending:
            return
        if self.why is not None and self.why.kind in ("canceled", "deadline", "timeout"):
            self.end(Stopped(self._seconds(now)))
            return
        if not self.watch.posted:
            since = self.watch.unanswered_at
            if since is None or now - since >= POST_GRACE_SECONDS:
                refused = self.watch.refused
                self.end(Lost("prompt never arrived", unsent=not refused, refused=refused))
            return
        self.watch.missed += 1
        if self.watch.missed >= LOST_GRACE_LOOKS:
            self.end(Lost(RESTARTED, backend_died=self.watch.started_at is not None and not self.adopted))

    # --- stopping --------------------------------------------------------------------------------------

    def stop(self, why: Why) -> None:
        """Ask the backend to stop, again and again, until there is a verdict."""
        if self.why is None:
            self.why = why
        self.halt.set()
        if self._stopping is None and not self.verdict.done():
            self._stopping = asyncio.create_task(self._stop())

    async def _stop(self) -> None:
        while not self.verdict.done():
            try:
                await self.remove()
                await self.look(await self._client.queue())
            except BackendError:
                pass
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self.verdict), ASK_AGAIN_SECONDS)

    def abandon(self) -> None:
        """Stop following; the prompt stays where it is."""
        self._teller.close()
        for task in (self._stopping, self._marked, None if self.fetching is None else self.fetching.task):
            if task is not None:
                task.cancel()


def graph_from(data: bytes) -> Graph:
    graph: Graph = orjson.loads(data)
    return graph

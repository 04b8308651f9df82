"""One backend, driven: two prompts kept in its queue, each followed to its end, none forgotten.

Claims while there is room, posts, routes the socket's messages to runs, and looks at queue and history
whenever the socket may not have told all. Adopts what an earlier process left.
"""

import asyncio
import contextlib
import random
from typing import Any, Final

import structlog

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.message_types import Message, PreviewFrame
from comfy_api_service.comfyui.socket import Session
from comfy_api_service.db import backends, claims, work
from comfy_api_service.db.base import CommitUnknown, Database, Tx
from comfy_api_service.db.claims import Busy, Claimant, Claimed
from comfy_api_service.db.work import OpenAttempt
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Unavailable
from comfy_api_service.domain.graph import Graph, output_nodes
from comfy_api_service.domain.ids import new_client_id, new_prompt_id
from comfy_api_service.services.forever import forever
from comfy_api_service.signals.base import Signals
from comfy_api_service.storage.base import Storage
from comfy_api_service.telemetry import BackendFigures
from comfy_api_service.worker.assignment import Assignment, assigned
from comfy_api_service.worker.busy import BusyMeter
from comfy_api_service.worker.contact import Contact
from comfy_api_service.worker.inputs import INPUTS_LOST, InputFiles
from comfy_api_service.worker.oversight import Oversight
from comfy_api_service.worker.preparation import Preparation, Prepared, attempt_graph
from comfy_api_service.worker.reporter import Reporter
from comfy_api_service.worker.room import Room
from comfy_api_service.worker.run import RESTARTED, Run
from comfy_api_service.worker.settle import Settler
from comfy_api_service.worker.verdict import Broke, Declined, Lost, Verdict, Why

log = structlog.get_logger()

PROMPTS: Final = 2
"""Prompts kept in a backend's queue: it never idles between jobs; more would only lose control."""
RESULT_FIRST_SECONDS: Final = 0.015
"""How long the next claim, and the start of the next prompt, wait for a result to be written."""
STRAYS_SECONDS: Final = 30.0
AWAY_SECONDS: Final = 0.25
"""Before the next claim when the database did not answer."""
BUSY_SECONDS: Final = (0.005, 0.02)
"""When to look again for work that others had just now: at random between these."""
POLL_SECONDS: Final = 0.25
"""How often an idle backend looks for work when no wake-up comes."""


class Driver:
    def __init__(
        self,
        *,
        backend_id: str,
        name: str,
        worker_id: str,
        client: ComfyClient,
        db: Database,
        signals: Signals,
        clock: Clock,
        figures: BackendFigures,
        reporter: Reporter,
        settler: Settler,
        room: Room,
        preparation: Preparation,
        storage: Storage,
        job_timeout: float,
        stall_timeout: float,
    ) -> None:
        self.backend_id = backend_id
        self.name = name
        self.busy = BusyMeter(clock)
        self._worker_id = worker_id
        self._client = client
        self._db = db
        self._signals = signals
        self._clock = clock
        self._figures = figures
        self._reporter = reporter
        self._settler = settler
        self._room = room
        self._preparation = preparation
        self._beginning: set[str] = set()
        """Prompts that were claimed and are not yet followed."""
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self.contact = Contact(
            backend_id, name, worker_id, client, db, signals, clock, figures, changed=self._changed.set
        )
        self._inputs = InputFiles(client, self.contact, db, storage, figures)
        self._session = Session(
            client,
            backend=name,
            client_id=new_client_id(),
            on_message=self._on_message,
            on_link=self._on_link,
        )
        self._runs: dict[str, Run] = {}
        self._settling: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._resident: str | None = None
        self._draining = False
        self._oversight = Oversight(
            self._runs,
            client,
            self._session,
            self.contact,
            db,
            clock,
            job_timeout=job_timeout,
            stall_timeout=stall_timeout,
        )

    def tell_busy(self) -> None:
        self._figures.busy.set(self.busy.ratio())

    # --- life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Adopt, then drive until cancelled."""
        await self._adopt()
        async with asyncio.TaskGroup() as group:
            for name, work in (
                ("contact", self.contact.run),
                ("session", self._session.run),
                ("claiming", self._claiming),
                ("oversight", self._oversight.run),
                ("strays", self._find_strays),
            ):
                group.create_task(forever(f"{name} of {self.name}", work))

    async def drain(self, grace: float) -> None:
        """Take no new work; let runs finish for `grace` seconds. What is left stays with the backend."""
        self._draining = True
        self._changed.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)

    def pause(self, paused: bool) -> None:
        """Whether to take no new work for now; what is here runs on."""
        self.contact.drain(paused)

    async def close(self) -> None:
        for run in self._runs.values():
            run.abandon()
        await self._inputs.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def job_ids(self) -> set[str]:
        """Jobs whose prompts are here, or whose results are being stored."""
        return {run.assignment.job_id for run in self._all_runs()}

    def _all_runs(self) -> tuple[Run, ...]:
        return (*self._runs.values(), *self._settling.values())

    def stop_job(self, job_id: str, why: Why) -> None:
        """Ask for the end of a job, if it is here."""
        for run in self._all_runs():
            if run.assignment.job_id == job_id:
                run.stop(why)

    # --- claiming --------------------------------------------------------------------------------------

    async def _claiming(self) -> None:
        while True:
            await self._until_ready()
            seen = self._signals.wakes
            if not await self._claim():
                await self._signals.woken(seen, self._signals.poll_seconds)

    async def _until_ready(self) -> None:
        while not self._ready():
            self._changed.clear()
            if self._ready():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._changed.wait()

    def _ready(self) -> bool:
        return (
            not self._draining
            and len(self._runs) < PROMPTS
            and self._session.connected
            and self.contact.inventory is not None
            and self.contact.permits()
            and self._room.free
            and not self._settler.storage_fails
        )

    async def _claim(self) -> bool:
        inventory = self.contact.inventory
        if inventory is None:
            return False
        claimant = Claimant(self.backend_id, self._worker_id, self._session.client_id, inventory.hash)
        prompt_id = new_prompt_id()
        claimed: Claimed | OpenAttempt | Busy | None
        try:
            claimed = await claims.next_job(
                self._db, claimant, prompt_id=prompt_id, now=self._clock.now(), wanted=self._room.wanted
            )
        except CommitUnknown:
            claimed = await self._claimed_after_all(prompt_id)
        except Unavailable:
            await asyncio.sleep(AWAY_SECONDS)
            return False
        if isinstance(claimed, Busy):
            await asyncio.sleep(random.uniform(*BUSY_SECONDS))  # noqa: S311 - claimants are spread by it
            return True
        if claimed is None:
            return False
        if claimed.model is not None and claimed.model != self._resident:
            self._figures.model_loads.inc()
            self._resident = claimed.model
        assignment = assigned(claimed)
        self._room.take()
        try:
            await self._begin(assignment)
        except Exception:
            self._room.give_back()
            log.exception("beginning_failed", job_id=assignment.job_id)
            await self._reporter.requeue(assignment, Lost("internal fault", unsent=True))
        return True

    async def _claimed_after_all(self, prompt_id: str) -> OpenAttempt | None:
        """The attempt of a claim that nobody heard of, if it was committed."""
        attempts = await self._reporter.persist(
            lambda tx: work.open_attempts(tx, self.backend_id, self._worker_id)
        )
        return next((attempt for attempt in attempts if attempt.prompt_id == prompt_id), None)

    async def _begin(self, assignment: Assignment) -> None:
        """Compile if that is still to do, then post; the run is known before anything is sent."""
        self._beginning.add(assignment.prompt_id)
        try:
            await self._prepare_and_post(assignment)
        finally:
            self._beginning.discard(assignment.prompt_id)

    async def _prepare_and_post(self, assignment: Assignment) -> None:
        prepared = await self._preparation.prepare(assignment, self.contact.inventory)
        if isinstance(prepared, Prepared):
            prepared = await self._inputs.place(prepared)
        if isinstance(prepared, Declined | Lost):
            run = self._make_run(assignment, {}, adopted=False)
            run.end(prepared)
            self._follow(run, {})
            return
        run = self._make_run(prepared.assignment, prepared.graph, adopted=False)
        self._follow(run, prepared.graph)
        await self._post(run)

    async def _post(self, run: Run) -> None:
        self.contact.probing()
        await run.post()
        if run.watch.posted:
            self.contact.answered_well()
        elif not (run.verdict.done() and _refused(run.verdict.result())):
            self.contact.answered_badly()

    # --- runs ------------------------------------------------------------------------------------------

    def _make_run(self, assignment: Assignment, graph: Graph, *, adopted: bool) -> Run:
        run = Run(
            assignment,
            self._client,
            self._reporter,
            self._clock,
            promised=output_nodes(graph, self.contact.inventory),
            graph=graph,
            link=None if adopted or not self._session.connected else self._session.link,
            on_outputs=lambda run: self._settler.fetch(run, self._client),
            on_started=self._started,
            on_refused=self._inputs.on_refused,
            adopted=adopted,
        )
        self._runs[run.prompt_id] = run
        return run

    def _follow(self, run: Run, graph: Graph) -> None:
        self._spawn(self._live(run, graph))

    async def _live(self, run: Run, graph: Graph) -> None:
        """From a run to its settled end. The backend's place is free as soon as there is a verdict."""
        try:
            verdict = await run.verdict
        finally:
            self._settling[run.prompt_id] = run
            self._settled.clear()
            self._runs.pop(run.prompt_id, None)
            self._room.give_back()
            if self._runs:  # the backend has work: who waits for this result goes before the next claim
                asyncio.get_running_loop().call_later(RESULT_FIRST_SECONDS, self._changed.set)
            else:
                self._changed.set()
            self.busy.ended(run.prompt_id)
        try:
            if _unloads(verdict):
                await self._forget_residency()
            await self._settler.settle(run, verdict, self._client, graph)
        except Exception:
            log.exception("settling_failed", job_id=run.assignment.job_id)
            await self._reporter.requeue(run.assignment, Lost("internal fault"))
        finally:
            self._settling.pop(run.prompt_id, None)
            if not self._settling:
                self._settled.set()
            self._changed.set()

    async def _started(self, run: Run) -> bool:
        """Write that it runs, a little later if a result is being written: somebody waits for that one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RESULT_FIRST_SECONDS):
                await self._settled.wait()
        held = await self._reporter.started(run.assignment)
        if held:
            self._spawn(self._settler.expect(run))
        return held

    async def _forget_residency(self) -> None:
        """After a restart, or once it was told to free its memory, a backend has nothing loaded."""
        self._resident = None
        await self._reporter.persist(
            lambda tx: backends.forget_residency(tx, self.backend_id, self._worker_id)
        )

    def _spawn(self, coroutine: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_message(self, message: Message) -> None:
        prompt_id = getattr(message, "prompt_id", None)
        run = self._runs.get(prompt_id) if prompt_id is not None else None
        if run is None and isinstance(message, PreviewFrame) and prompt_id is None:
            run = next((one for one in self._runs.values() if one.watch.started_at is not None), None)
        if run is None:
            return
        run.on_message(message)
        if run.watch.started_at is not None:
            self.busy.began(run.prompt_id)

    def _on_link(self, up: bool) -> None:
        if not up:
            for run in self._runs.values():
                run.gap()
            self.contact.ask_now(inventory=True)
        self._changed.set()
        self._oversight.look_now()

    # --- adopting ---------------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """Take over the open attempts of this backend; each is settled where it is."""

        async def take(tx: Tx) -> list[OpenAttempt]:
            adopted = await work.adopt(tx, self.backend_id, self._worker_id)
            await backends.forget_residency(tx, self.backend_id, self._worker_id)
            return adopted

        for attempt in await self._reporter.persist(take):
            known = attempt.prompt_id in self._runs or attempt.prompt_id in self._settling
            if not known and not self._settler.holds(attempt.fence.key):
                self._take_up(attempt)

    def _take_up(self, attempt: OpenAttempt) -> None:
        assignment = assigned(attempt)
        graph = {} if assignment.graph is None else attempt_graph(assignment, assignment.graph)
        self._room.take()
        run = self._make_run(assignment, graph, adopted=True)
        log.info("attempt_adopted", job_id=assignment.job_id, attempt=assignment.attempt)
        self._follow(run, graph)

    async def _find_strays(self) -> None:
        """A net under all else: an open attempt that nobody here follows, twice in a row, is taken up."""
        missed: set[str] = set()
        while True:
            await asyncio.sleep(STRAYS_SECONDS)
            if self._draining:
                continue
            attempts = await self._db.read(
                lambda tx: work.open_attempts(tx, self.backend_id, self._worker_id)
            )
            known = {*self._runs, *self._settling, *self._beginning}
            strays = [
                one
                for one in attempts
                if one.prompt_id not in known and not self._settler.holds(one.fence.key)
            ]
            for attempt in strays:
                if attempt.prompt_id in missed:
                    log.error("stray_attempt", job_id=attempt.job_id, attempt=attempt.attempt)
                    self._take_up(attempt)
            missed = {one.prompt_id for one in strays}


def _refused(verdict: Verdict) -> bool:
    """The backend answered, and well, whatever it said of the prompt."""
    return isinstance(verdict, Declined) or (isinstance(verdict, Lost) and verdict.reason == INPUTS_LOST)


def _unloads(verdict: Verdict) -> bool:
    if isinstance(verdict, Broke):
        return verdict.failure.out_of_memory
    return isinstance(verdict, Lost) and verdict.reason == RESTARTED

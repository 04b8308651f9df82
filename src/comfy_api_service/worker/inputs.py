"""The input files of jobs, on one backend: each content sent once, under a name that nobody can guess.

They lie in the backend's folder for temporary files, which ComfyUI empties when it starts; loader nodes find
them there by the mark `[temp]` behind the name. A backend that lost them refuses the prompt and names the input.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Final

import structlog

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import BackendError, BadAnswer, PromptRefused
from comfy_api_service.comfyui.files import FileRef
from comfy_api_service.db import uploads
from comfy_api_service.db.base import Database
from comfy_api_service.domain.errors import Code, Unavailable
from comfy_api_service.domain.graph import OWN_FOLDER, Graph
from comfy_api_service.domain.job import JobError
from comfy_api_service.domain.upload import JobInput, Upload
from comfy_api_service.storage.base import ObjectMissing, ObjectReader, Storage, StorageError
from comfy_api_service.telemetry import BackendFigures
from comfy_api_service.worker.assignment import Assignment
from comfy_api_service.worker.contact import Contact
from comfy_api_service.worker.preparation import Prepared
from comfy_api_service.worker.verdict import Declined, Lost

log = structlog.get_logger()

INPUTS_LOST: Final = "input files lost"
PATIENCE_SECONDS: Final = 60.0
"""For all input files of a job; then it waits again."""
PAUSE_SECONDS: Final = 0.5
"""Before the next claim when the store or the database is away."""
MOST_NAMES: Final = 10_000
"""Files that are remembered; the oldest is forgotten first, and sent again when it is needed."""
_EXTENSIONS: Final = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._() -]{0,127}")


class InputFiles:
    """What one backend has of input files."""

    def __init__(
        self, client: ComfyClient, contact: Contact, db: Database, storage: Storage, figures: BackendFigures
    ) -> None:
        self._client = client
        self._contact = contact
        self._db = db
        self._storage = storage
        self._sent = figures.inputs_sent
        self._names: dict[str, asyncio.Task[str]] = {}
        """By content: the name in the backend's words, or the sending that will tell it."""
        self._again: dict[str, None] = {}
        """Jobs whose files were sent anew because the backend had lost them."""

    async def place(self, prepared: Prepared) -> Prepared | Declined | Lost:
        """The graph with the backend's names in place of the uploads' ids, all files being there."""
        inputs = prepared.assignment.inputs
        if not inputs:
            return prepared
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                names = await self._place_all(inputs)
        except _Gone:
            error = JobError(Code.INVALID_INPUT, "An input file of the job is there no more.")
            return Declined(error)
        except BackendError as fault:
            log.warning("input_not_sent", job_id=prepared.assignment.job_id, reason=type(fault).__name__)
            self._contact.answered_badly()
            await asyncio.sleep(PAUSE_SECONDS)
            refused = isinstance(fault, BadAnswer)  # as with prompts, that does not go on for ever
            return Lost("backend took no input files", unsent=not refused, refused=refused)
        except (StorageError, Unavailable, TimeoutError) as fault:
            log.warning("input_not_read", job_id=prepared.assignment.job_id, reason=type(fault).__name__)
            await asyncio.sleep(PAUSE_SECONDS)
            return Lost("input files unavailable", unsent=True)
        return replace(prepared, graph=with_names(prepared.graph, inputs, names))

    def on_refused(self, assignment: Assignment, refused: PromptRefused) -> Lost | None:
        """Whether the backend refused the prompt for want of a file that it was sent; once for each job."""
        places = {(one.node_id, one.input) for one in assignment.inputs}
        faults = {(fault.node_id, fault.input) for fault in refused.node_errors}
        named = any(place in faults or (place[0], None) in faults for place in places)
        if not named or assignment.job_id in self._again:
            return None
        _remember(self._again, assignment.job_id, None)
        self._names = {content: task for content, task in self._names.items() if not task.done()}
        log.warning("input_files_lost", job_id=assignment.job_id)
        return Lost(INPUTS_LOST, unsent=True)

    async def close(self) -> None:
        """End what is being sent."""
        tasks = tuple(self._names.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _place_all(self, inputs: tuple[JobInput, ...]) -> dict[str, str]:
        wanted = sorted({one.upload_id for one in inputs})
        found = await self._db.read(lambda tx: uploads.of_jobs(tx, wanted))
        if found.keys() != set(wanted):
            raise _Gone
        names = {}
        for upload_id in wanted:  # one at a time: the line to the backend is shared, and so is the memory
            names[upload_id] = await self._name(found[upload_id])
        return names

    async def _name(self, upload: Upload) -> str:
        task = self._names.get(upload.sha256)
        if task is not None:
            try:
                return await asyncio.shield(task)
            except _Gone:  # another account's file of this content was deleted on its way
                pass
        return await asyncio.shield(self._sending(upload))

    def _sending(self, upload: Upload) -> "asyncio.Task[str]":
        task = asyncio.create_task(self._send(upload), name="input file")
        _remember(self._names, upload.sha256, task)
        task.add_done_callback(self._sent_or_not)
        return task

    def _sent_or_not(self, task: "asyncio.Task[str]") -> None:
        if task.cancelled() or task.exception() is not None:
            self._forget(task)

    def _forget(self, task: "asyncio.Task[str]") -> None:
        for content in [content for content, one in self._names.items() if one is task]:
            del self._names[content]

    async def _send(self, upload: Upload) -> str:
        name = f"{secrets.token_hex(16)}.{_EXTENSIONS[upload.media_type]}"
        try:
            async with self._storage.open(upload.key) as reader:
                body = _Body(reader)
                self._contact.probing()
                try:
                    ref = await self._client.upload_image(name, body, subfolder=OWN_FOLDER, folder="temp")
                except BackendError:
                    if body.fault is not None:  # the client library says that the line broke
                        raise body.fault from None
                    raise
        except ObjectMissing as fault:
            raise _Gone from fault
        self._sent.inc()
        return _annotated(ref)


class _Body:
    """A file on its way from the store to a backend; `fault` is why it could not be read to its end."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self.fault: StorageError | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._reader.chunks():
                yield chunk
        except StorageError as fault:
            self.fault = fault
            raise


class _Gone(Exception):
    """A file that the job needs was deleted, whatever kept it."""


def with_names(graph: Graph, inputs: tuple[JobInput, ...], names: Mapping[str, str]) -> Graph:
    """The graph with the names of files, by upload id, as the values of these inputs; the given one stays as it is."""
    sent: dict[str, Mapping[str, Any]] = dict(graph)
    for one in inputs:
        node = sent[one.node_id]
        sent[one.node_id] = {**node, "inputs": {**node["inputs"], one.input: names[one.upload_id]}}
    return sent


def _annotated(ref: FileRef) -> str:
    """The file as a loader node names it. Raises `BadAnswer` for a name that says more than a name."""
    if not _PLAIN.fullmatch(ref.filename) or ref.subfolder != OWN_FOLDER:
        raise BadAnswer("The backend stored the upload elsewhere.")
    return f"{ref.subfolder}/{ref.filename} [{ref.type}]"


def _remember(known: dict[str, Any], key: str, value: Any) -> None:
    known[key] = value
    if len(known) > MOST_NAMES:
        del known[next(iter(known))]

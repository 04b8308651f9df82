"""Bring a prompt's outputs into storage: streamed, recognised by content, cleaned, hashed, checked."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
import structlog

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import BackendError, OutputInvalid, OutputMissing
from comfy_api_service.comfyui.files import MAX_FILES, FileRef, is_anothers
from comfy_api_service.comfyui.message_types import Output
from comfy_api_service.domain.job import Artifact, MetadataMode
from comfy_api_service.media.errors import MediaError, TooManyBytes
from comfy_api_service.media.pipeline import Intake
from comfy_api_service.media.sniff import belies
from comfy_api_service.storage.base import Sink, StorageError
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker.assignment import Assignment

log = structlog.get_logger()

BACKEND_PATIENCE_SECONDS: Final = 10.0
"""How long a file is asked for while its backend answers badly or not at all."""


MAX_JOB_TEXT: Final = 1 << 20
"""Characters of all texts of a job: they stand in its row, and in every answer that tells of it."""


class TooMuch(Exception):
    """More files or bytes than the job may give."""


@dataclass(frozen=True, slots=True)
class Collected:
    artifacts: tuple[Artifact, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)


class Collector:
    def __init__(self, storage: Sink, intake: Intake, metrics: Metrics, *, limit_bytes: int) -> None:
        """`limit_bytes`: the largest single file that is taken."""
        self._storage = storage
        self._intake = intake
        self._metrics = metrics
        self._limit_bytes = limit_bytes
        self._failing: set[str] = set()

    @property
    def storage_fails(self) -> bool:
        """Whether results wait because the store is down or full: more work would only pile up."""
        return bool(self._failing)

    async def collect(
        self, client: ComfyClient, assignment: Assignment, outputs: Sequence[Output], stored: list[str]
    ) -> Collected:
        """Everything the prompt gave, durable when it returns. `stored` grows by the key of each file that is.

        Raises `OutputMissing` (a file is gone), `OutputInvalid` and `MediaError` (not what it should be), `TooMuch`,
        other `BackendError`s after some tries. Waits for a store that is down, however long.
        """
        files = _files(assignment, outputs)
        values, text = _values(outputs)
        limit = assignment.output.bytes
        left = None if limit is None else limit - text
        if left is not None and left < 0:
            raise TooMuch(f"more than {limit} bytes")
        artifacts: list[Artifact] = []
        for index, (node, file) in enumerate(files):
            most = self._limit_bytes if left is None else min(self._limit_bytes, left)
            try:
                artifact = await self._patiently(client, assignment, node, file, index, most)
            except TooManyBytes:
                own = left is None or most == self._limit_bytes
                raise TooMuch(
                    f"a file of more than {most} bytes" if own else f"more than {limit} bytes"
                ) from None
            stored.append(artifact.key)
            artifacts.append(artifact)
            left = None if left is None else left - artifact.bytes
        return Collected(tuple(artifacts), values)

    async def _patiently(
        self, client: ComfyClient, assignment: Assignment, node: str, file: FileRef, index: int, most: int
    ) -> Artifact:
        """One file. A backend that stumbles is asked again for a while; for the store the result waits, since
        it stays with the backend: it is generated again only if that loses it.
        """
        loop = asyncio.get_running_loop()
        backend_until = loop.time() + BACKEND_PATIENCE_SECONDS
        pause = 0.1
        try:
            while True:
                try:
                    artifact = await self._one(client, assignment, node, file, index, most)
                except (OutputMissing, OutputInvalid, MediaError):
                    raise
                except BackendError:
                    if loop.time() > backend_until:
                        raise
                except StorageError as fault:
                    self._metrics.uploads.labels("failed").inc()
                    self._failing.add(assignment.prompt_id)
                    log.warning("storage_failed", job_id=assignment.job_id, reason=str(fault))
                else:
                    self._metrics.uploads.labels("ok").inc()
                    self._metrics.upload_bytes.inc(artifact.bytes)
                    return artifact
                await asyncio.sleep(pause)
                pause = min(pause * 2, 5.0)
        finally:
            self._failing.discard(assignment.prompt_id)

    async def _one(
        self, client: ComfyClient, assignment: Assignment, node: str, file: FileRef, index: int, most: int
    ) -> Artifact:
        async with client.view(file) as stream:
            prepared = await self._intake.intake(
                stream.chunks(),
                options=assignment.output,
                embed=_embedded(assignment, index),
                limit_bytes=most,
            )
            if belies(file.filename, prepared.kind):
                raise OutputInvalid("A file is not of the kind that its name says.")
            key = f"{_folder(assignment)}/{prepared.kind}_{index}.{prepared.extension}"
            stored = await self._storage.put(key, prepared, media_type=prepared.media_type)
        try:
            prepared.finish_check()
        except MediaError:
            await self._storage.delete([key])
            raise
        return Artifact(
            index=index,
            node_id=node,
            kind=prepared.kind,
            media_type=prepared.media_type,
            bytes=stored.bytes,
            sha256=stored.sha256,
            key=key,
            width=prepared.width,
            height=prepared.height,
            seed=assignment.params.get("seed"),
            meta=assignment.place_in_batch(index),
        )

    async def expect(self, assignment: Assignment) -> None:
        """The store may prepare itself while the prompt runs; if it fails, so will the putting, and say why."""
        with contextlib.suppress(StorageError):
            await self._storage.expect(_folder(assignment))

    async def forget(self, assignment: Assignment) -> None:
        """No result will come of this attempt."""
        with contextlib.suppress(StorageError):
            await self._storage.forget(_folder(assignment))

    async def discard(self, assignment: Assignment, keys: Sequence[str]) -> None:
        """Remove what was stored for a job that did not take it."""
        try:
            await self._storage.delete(keys)
        except StorageError:
            log.warning("discard_failed", job_id=assignment.job_id)


def _files(assignment: Assignment, outputs: Sequence[Output]) -> list[tuple[str, FileRef]]:
    """Node and reference of each file. Raises `OutputInvalid` for one that is not this attempt's, `TooMuch`."""
    if any(output.invalid for output in outputs):
        raise OutputInvalid("The backend named files outside its own folders.")
    files = [(output.node, file) for output in outputs for file in output.files]
    if any(is_anothers(file, assignment.job_id, assignment.attempt) for _, file in files):
        raise OutputInvalid("The backend named files of another job.")
    most = MAX_FILES if assignment.output.files is None else min(MAX_FILES, assignment.output.files)
    if len(files) > most:
        raise TooMuch(f"{len(files)} files, of at most {most}")
    return files


def _values(outputs: Sequence[Output]) -> tuple[dict[str, list[Any]], int]:
    """Texts and numbers by node, and the bytes of all texts. Raises `TooMuch`."""
    values: dict[str, list[Any]] = {}
    characters = size = 0
    for output in outputs:
        for value in output.values:
            if isinstance(value, str):
                characters += len(value)
                size += len(value.encode())
            if characters > MAX_JOB_TEXT:
                raise TooMuch(f"more than {MAX_JOB_TEXT} characters of text")
            values.setdefault(output.node, []).append(value)
    return values, size


def _folder(assignment: Assignment) -> str:
    return f"jobs/{assignment.job_id}/{assignment.attempt}"


def _embedded(assignment: Assignment, index: int) -> Mapping[str, str] | None:
    """Prompt, seed and parameters, where the caller asked for them to be written into the picture."""
    if assignment.output.metadata is not MetadataMode.EMBED:
        return None
    params = {key: value for key, value in assignment.params.items() if value not in (None, [], "")}
    params |= assignment.place_in_batch(index)
    return {
        "prompt": str(params.get("prompt", "")),
        "seed": str(params.get("seed", "")),
        "parameters": orjson.dumps(params, option=orjson.OPT_SORT_KEYS).decode(),
    }

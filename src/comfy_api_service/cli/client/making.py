"""From a request to its files: submit, follow to the end, save what came out."""

import asyncio
import contextlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comfy_api_service.cli.client.api import Api
from comfy_api_service.cli.client.bars import Shown
from comfy_api_service.cli.client.refusals import Document, JobsSwitchedOff, Refused, remedy_of
from comfy_api_service.cli.client.saving import save, targets
from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.output import say
from comfy_api_service.domain.errors import Code

WORDS = {"processing": "running", "completed": "succeeded"}
"""What `generate` calls otherwise than a job."""
BACKEND_PAUSE_SECONDS = 1.0
TERMINAL = frozenset({"succeeded", "failed", "canceled"})


class JobFailed(Fault):
    """The job ended without a result."""


@dataclass(frozen=True, slots=True)
class Made:
    """A job that succeeded, in its own shape or in that of `generate`."""

    api: Api
    job: Document

    @property
    def job_id(self) -> str:
        return str(self.job["job_id"])

    @property
    def artifacts(self) -> Sequence[Document]:
        result = self.job.get("result") or {}
        found: Sequence[Document] = result.get("artifacts") or self.job.get("images") or ()
        return found

    @property
    def values(self) -> Document:
        """Text and numbers that output nodes gave."""
        found: Document = (self.job.get("result") or {}).get("values") or {}
        return found

    async def save(self, target: Path | None, *, force: bool) -> list[Path]:
        """Every file in its place, checked against its size and SHA-256; absolute paths, in order."""
        artifacts = self.artifacts
        if not artifacts:
            raise Fault(f"{self.job_id} succeeded without a file.", "`comfy-api jobs show` tells its values.")
        paths = targets(target, self.job_id, [str(one["media_type"]) for one in artifacts])
        for path, artifact in zip(paths, artifacts, strict=True):
            await save(self.api.download(str(artifact["url"])), path, artifact, force=force)
        return [path.absolute() for path in paths]


async def make(api: Api, body: Mapping[str, Any], shown: Shown) -> Made:
    """Submit and follow; where jobs are switched off, wait for the answer. Interrupted, it cancels the job."""
    key = f"cli-{uuid.uuid4()}"
    try:
        accepted = await api.submit(body, key)
    except JobsSwitchedOff:
        return await _wait_for(api, body, key, shown)
    job_id = str(accepted["job_id"])
    shown.show(accepted)
    try:
        job = await follow(api, job_id, shown)
    except asyncio.CancelledError:
        await _give_up(api, job_id)
        raise
    return Made(api, succeeded(job))


async def _wait_for(api: Api, body: Mapping[str, Any], key: str, shown: Shown) -> Made:
    """By `generate`, asked again until the job has ended. Without a backend it waits for one, as a job does."""
    while True:
        try:
            made = await api.generate(body, key)
        except Refused as refusal:
            if refusal.code != Code.BACKEND_UNAVAILABLE:
                raise
            shown.show({"status": "waiting for a ComfyUI server"})
            await asyncio.sleep(BACKEND_PAUSE_SECONDS)
            continue
        shown.show({"status": WORDS.get(str(made["status"]), made["status"])})
        if made["status"] == "completed":
            return Made(api, made)


async def follow(api: Api, job_id: str, shown: Shown) -> Document:
    """The job at its end, whatever it is."""
    async with contextlib.aclosing(api.events(job_id, previews=shown.previews)) as events:
        async for event in events:
            shown.show(event)
    return await api.job(job_id)


def succeeded(job: Document) -> Document:
    """The job, or `JobFailed` with its error's code and what to do about it."""
    status, job_id = job.get("status"), job.get("job_id")
    if status == "succeeded":
        return job
    error = job.get("error") or {}
    code = str(error.get("code", ""))
    if status == "failed" and code:
        where = f" (node {error['node_id']})" if error.get("node_id") else ""
        raise JobFailed(f"{job_id} failed. {code}: {error.get('message', '')}{where}", remedy_of(code))
    raise JobFailed(f"{job_id} was {status}." if status == "canceled" else f"{job_id} ended as {status}.")


async def _give_up(api: Api, job_id: str) -> None:
    """Cancel on the way out; bounded, and the interruption stays what ends the command."""
    try:
        async with asyncio.timeout(5):
            job = await api.cancel(job_id)
    except (Fault, TimeoutError):
        say(f"{job_id} could not be canceled; try `comfy-api jobs cancel {job_id}`")
    else:
        say(f"{job_id} is {job.get('status') if job.get('status') in TERMINAL else 'being canceled'}")

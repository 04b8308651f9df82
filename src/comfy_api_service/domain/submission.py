"""What a caller asks for, and what became of the asking. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from comfy_api_service.domain.generation import GenerationRequest
from comfy_api_service.domain.graph import Graph, Requirement
from comfy_api_service.domain.job import OutputOptions, Status
from comfy_api_service.domain.tiers import UNLIMITED, Limits
from comfy_api_service.domain.upload import JobInput


class JobOptions(NamedTuple):
    """Everything about a job that is not the picture itself. `deadline` is in seconds from now."""

    priority: int = 0
    deadline: float | None = None
    max_attempts: int = 3
    labels: Mapping[str, str] = MappingProxyType({})
    webhook_url: str | None = None
    output: OutputOptions = OutputOptions()
    dedupe: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """The template's version that a graph was filled from, and what it was filled with."""

    workflow_id: str
    version: int
    inputs: Mapping[str, Any]


class GraphRequest(NamedTuple):
    """A whole graph as it came in: in either form, not checked yet."""

    document: Mapping[str, Any]
    source: Source | None = None


class TemplateRequest(NamedTuple):
    """A stored workflow to be filled; `version` None is the latest."""

    workflow_id: str
    version: int | None
    inputs: Mapping[str, Any]


Asked = GenerationRequest | GraphRequest | TemplateRequest


class Order(NamedTuple):
    """One submission as it came in.

    `body` is the canonical form of the request: what the Idempotency-Key and `dedupe` compare.
    """

    asked: Asked
    options: JobOptions
    body: bytes
    idempotency_key: str | None = None
    batch_id: str | None = None
    batch_index: int | None = None


class NewJob(NamedTuple):
    """A job ready to be written: compiled, checked, priced. A tuple, since each submission makes one."""

    id: str
    account_id: str
    requirement: Requirement
    graph: Graph | None
    """None: no inventory was known; the worker that takes the job compiles it."""
    params: Mapping[str, Any]
    options: JobOptions
    images: int
    cost: float
    timing_key: str
    queued_at: float
    fingerprint: str
    idempotency_key: str | None = None
    batch_id: str | None = None
    batch_index: int | None = None
    limits: Limits = UNLIMITED
    """What holds for the account at the submission."""
    workflow: tuple[str, int] | None = None
    """The template's id and version."""
    pixel_steps: float = 0.0
    inputs: tuple[JobInput, ...] = ()
    """Uploads of the account; they are kept until the job ends."""
    trace_context: str | None = None
    """Its place in a trace, as in a `traceparent`; None: traces are off."""


@dataclass(frozen=True, slots=True)
class NewBatch:
    """Several requests of one call, to be written together with the jobs that they make."""

    id: str
    account_id: str
    created_at: float
    total: int
    fingerprint: str
    idempotency_key: str | None = None


class Place(NamedTuple):
    """Where a job stands in the queue; both are estimates."""

    position: int
    start_at: float | None


class Cost(NamedTuple):
    """The work of a job, and the seconds of a backend that it is estimated to take."""

    pixel_steps: float
    seconds: float


class Accepted(NamedTuple):
    """The job is on the disk. `replayed`: an earlier submission with the same Idempotency-Key or `dedupe`."""

    job_id: str
    status: Status
    queued_at: float
    place: Place | None
    replayed: bool = False
    deduplicated: bool = False
    cost: Cost | None = None
    """Of a job that was made just now."""

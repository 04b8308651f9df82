"""Webhooks: who wants to be told of what, and what became of each telling. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import takewhile
from typing import Final

from comfy_api_service.domain.events import EventType
from comfy_api_service.domain.job import Status


class WebhookEvent(StrEnum):
    """What a delivery tells of."""

    RUNNING = "job.running"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELED = "job.canceled"
    TEST = "webhook.test"


OF_JOBS: Final = (WebhookEvent.RUNNING, WebhookEvent.SUCCEEDED, WebhookEvent.FAILED, WebhookEvent.CANCELED)
"""What can be asked for; a test is sent by hand."""
STATUS_TOLD: Final[Mapping[str, Status]] = {
    WebhookEvent.RUNNING: Status.RUNNING,
    WebhookEvent.SUCCEEDED: Status.SUCCEEDED,
    WebhookEvent.FAILED: Status.FAILED,
    WebhookEvent.CANCELED: Status.CANCELED,
}


def told_of(kind: str, status: str | None) -> WebhookEvent | None:
    """What receivers hear of a durable event of a job; None: nothing."""
    if kind == EventType.RUNNING:
        return WebhookEvent.RUNNING
    if kind == EventType.DONE and status is not None:
        return WebhookEvent(f"job.{status}")
    return None


class Disabled(StrEnum):
    """Why a webhook is told nothing."""

    OWNER = "owner"
    GONE = "gone"
    """The receiver answered 410."""
    FAILING = "failing"
    """Nothing could be delivered for days."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver that an account registered; times are seconds since the epoch."""

    id: str
    account_id: str
    url: str
    events: tuple[WebhookEvent, ...]
    created_at: float
    updated_at: float
    disabled_at: float | None = None
    disabled_reason: Disabled | None = None
    failing_since: float | None = None
    """Every attempt since then has failed."""
    old_secret_until: float | None = None
    """Until then deliveries are signed with the secret before this one, too."""


class DeliveryState(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"


class Trouble(StrEnum):
    """Why an attempt failed, or why no other one follows: no host, no address, no word of the receiver's."""

    STATUS = "status"
    """The receiver answered, and not with 2xx."""
    REDIRECT = "redirect"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TLS = "tls"
    NAME = "name"
    """Its name is not known."""
    ADDRESS = "address_refused"
    GONE = "gone"
    EXPIRED = "expired"
    DISABLED = "webhook_disabled"
    JOB_DELETED = "job_deleted"
    INTERNAL = "internal"
    """A fault of this service."""
    SECRET = "secret_unreadable"  # noqa: S105 - the word, not one


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try; `seconds` is how long it took, `status` what the receiver answered, if it did."""

    at: float
    seconds: float
    status: int | None
    error: Trouble | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one receiver. `url`: of the job; None for a webhook's, which is the webhook's own."""

    id: str
    account_id: str
    webhook_id: str | None
    receiver: str
    url: str | None
    job_id: str | None
    type: WebhookEvent
    seq: int | None
    event_at: float
    state: DeliveryState
    attempts: int
    next_at: float
    expires_at: float
    created_at: float
    ended_at: float | None = None
    last_status: int | None = None
    last_error: Trouble | None = None
    log: tuple[Attempt, ...] = ()
    """The latest."""
    replayed_attempts: int = 0
    """How many there had been when it was last asked to be sent again."""
    trace_context: str | None = None
    """Of its job; known to whoever sends it."""

    @property
    def own_faults(self) -> int:
        """How often in a row it failed by this service's fault alone."""
        return sum(1 for _ in takewhile(lambda one: one.error is Trouble.INTERNAL, reversed(self.log)))


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one attempt. `retry_after`: the header, as it came."""

    status: int | None
    error: Trouble | None
    seconds: float
    retry_after: str | None = None

    @property
    def delivered(self) -> bool:
        return self.error is None

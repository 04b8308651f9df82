"""Webhooks: what is asked for, what is answered, and what receivers are sent."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from comfy_api_service.api.schemas.base import (
    EXAMPLE_JOB,
    EXAMPLE_TIME,
    Answer,
    BatchId,
    JobId,
    JobStatus,
    Request,
    Time,
)
from comfy_api_service.api.schemas.jobs import ArtifactAnswer, JobErrorAnswer
from comfy_api_service.domain.errors import TABLE, Code
from comfy_api_service.domain.ids import CROCKFORD
from comfy_api_service.domain.job import CacheUse
from comfy_api_service.domain.webhook import OF_JOBS, DeliveryState, Trouble, WebhookEvent

WEBHOOK_ID_PATTERN: Final = "^whk_[0-9A-HJKMNP-TV-Z]{26}$"
DELIVERY_ID_PATTERN: Final = "^msg_[0-9A-HJKMNP-TV-Z]{26}$"
EXAMPLE_WEBHOOK: Final = f"whk_{CROCKFORD[:26]}"
EXAMPLE_DELIVERY: Final = f"msg_{CROCKFORD[:26]}"
WebhookId = Annotated[str, Field(pattern=WEBHOOK_ID_PATTERN, examples=[EXAMPLE_WEBHOOK])]
DeliveryId = Annotated[str, Field(pattern=DELIVERY_ID_PATTERN, examples=[EXAMPLE_DELIVERY])]
Url = Annotated[str, Field(min_length=1, max_length=2048, examples=["https://example.com/hooks"])]
EventName = Literal["job.running", "job.succeeded", "job.failed", "job.canceled"]
Events = Annotated[list[EventName], Field(min_length=1, max_length=len(OF_JOBS))]
ENDS: Final[tuple[EventName, ...]] = ("job.succeeded", "job.failed", "job.canceled")
Secret = Annotated[
    str, Field(pattern=r"^whsec_[A-Za-z0-9+/]{43}=$", description="Shown this once.", examples=["whsec_…"])
]


class WebhookRequest(Request):
    """A receiver: https, public, on port 443, unless the operator has allowed more."""

    url: Url
    events: Events = Field(default_factory=lambda: list(ENDS), description="Default: how jobs end.")


class WebhookChange(Request):
    """What is absent stays as it is."""

    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = Field(
        None, description="False: nothing is delivered, and what waits is given up. True: it is again."
    )


class NoticeAnswer(Answer):
    """Something that the service did to a thing of the account's."""

    kind: Literal["webhook_disabled"]
    webhook_id: WebhookId
    at: Time
    reason: Literal["gone", "failing"]
    message: str


class WebhookAnswer(Answer):
    webhook_id: WebhookId
    url: str
    events: list[EventName]
    enabled: bool
    created_at: Time
    updated_at: Time
    failing_since: Time | None = Field(description="Every attempt since then has failed.")
    old_secret_until: Time | None = Field(
        description="Until then deliveries are signed with the secret before this one, too."
    )
    notice: NoticeAnswer | None = Field(description="Why the service disabled it, if it did.")


class NewWebhookAnswer(WebhookAnswer):
    secret: Secret


class WebhookList(Answer):
    webhooks: list[WebhookAnswer]
    next_cursor: str | None


class SecretAnswer(Answer):
    """The secret that deliveries to a job's `webhook_url` are signed with."""

    created_at: Time | None = Field(description="Null: it was never shown to anybody.")
    old_secret_until: Time | None


class NewSecretAnswer(SecretAnswer):
    secret: Secret


class AttemptAnswer(Answer):
    """`duration` is in seconds; `status` what the receiver answered, if it did."""

    at: Time
    duration: float
    status: int | None
    error: Trouble | None


class DeliveryAnswer(Answer):
    """One event for one receiver."""

    delivery_id: DeliveryId = Field(description="The header `webhook-id`, the same at each attempt.")
    webhook_id: WebhookId | None = Field(description="Null: it goes to the job's `webhook_url`.")
    url: str | None = Field(description="The job's `webhook_url`, if it goes there.")
    type: WebhookEvent
    job_id: JobId | None
    seq: int | None = Field(description="The event's number within its job.")
    event_at: Time
    status: DeliveryState
    attempts: int = Field(ge=0)
    next_attempt_at: Time | None
    expires_at: Time = Field(description="It is tried until then.")
    ended_at: Time | None
    last_status: int | None
    last_error: Trouble | None
    log: list[AttemptAnswer] = Field(description="The latest attempts, at most 20.")


class DeliveryList(Answer):
    deliveries: list[DeliveryAnswer]
    next_cursor: str | None


class WebhookDeliveryList(DeliveryList):
    notice: NoticeAnswer | None = Field(description="Why the service disabled the webhook, if it did.")


# --- what receivers are sent -------------------------------------------------------------------------------


class SentResult(Answer):
    """As in the job, but for texts that nodes gave: they are read from the job itself."""

    artifacts: list[ArtifactAnswer]
    generation_time: float | None
    queue_time: float | None
    cache: CacheUse | None


class SentJob(Answer):
    """The job as the event left it, without what was asked for (`params`). `error` says what its code means, without
    details: what a node said is read from the job itself.
    """

    seq: int = Field(ge=1, description="The event's number within its job: a later event has a greater one.")
    job_id: JobId
    status: JobStatus
    canceling: bool
    labels: dict[str, str]
    priority: int
    attempts: int = Field(ge=0)
    max_attempts: int = Field(ge=1)
    backend: str | None
    batch_id: BatchId | None
    queued_at: Time
    started_at: Time | None
    finished_at: Time | None
    deadline_at: Time | None
    purged_at: Time | None
    result: SentResult | None
    error: JobErrorAnswer | None


class JobWebhook(Answer):
    """The body of a delivery."""

    type: EventName
    timestamp: Time = Field(description="When it happened.")
    data: SentJob


class SentTest(Answer):
    webhook_id: WebhookId


class TestWebhook(Answer):
    """The body of a delivery that was asked for by `…/test`."""

    __test__ = False
    type: Literal["webhook.test"]
    timestamp: Time
    data: SentTest


SENT: Final = (JobWebhook, TestWebhook)
WEBHOOK: Final[dict[str, Any]] = {
    "webhook_id": EXAMPLE_WEBHOOK,
    "url": "https://example.com/hooks",
    "events": ["job.succeeded", "job.failed"],
    "enabled": True,
    "created_at": EXAMPLE_TIME,
    "updated_at": EXAMPLE_TIME,
    "failing_since": None,
    "old_secret_until": None,
    "notice": None,
}
NEW_SECRET: Final = "whsec_" + "A" * 43 + "="
DELIVERY: Final[dict[str, Any]] = {
    "delivery_id": EXAMPLE_DELIVERY,
    "webhook_id": EXAMPLE_WEBHOOK,
    "url": None,
    "type": "job.succeeded",
    "job_id": EXAMPLE_JOB,
    "seq": 4,
    "event_at": EXAMPLE_TIME,
    "status": "delivered",
    "attempts": 1,
    "next_attempt_at": None,
    "expires_at": EXAMPLE_TIME,
    "ended_at": EXAMPLE_TIME,
    "last_status": 204,
    "last_error": None,
    "log": [{"at": EXAMPLE_TIME, "duration": 0.043, "status": 204, "error": None}],
}
_SENT: Final[dict[str, Any]] = {
    "type": "job.failed",
    "timestamp": EXAMPLE_TIME,
    "data": {
        "seq": 3,
        "job_id": EXAMPLE_JOB,
        "status": "failed",
        "canceling": False,
        "labels": {"order": "4711"},
        "priority": 0,
        "attempts": 1,
        "max_attempts": 3,
        "backend": "comfyui-1",
        "batch_id": None,
        "queued_at": EXAMPLE_TIME,
        "started_at": EXAMPLE_TIME,
        "finished_at": EXAMPLE_TIME,
        "deadline_at": None,
        "purged_at": None,
        "result": None,
        "error": {
            "code": "OUT_OF_MEMORY",
            "message": TABLE[Code.OUT_OF_MEMORY].means,
            "details": {},
            "node_id": "3",
            "retryable": False,
        },
    },
}
_TEST: Final = {
    "type": "webhook.test",
    "timestamp": EXAMPLE_TIME,
    "data": {"webhook_id": EXAMPLE_WEBHOOK},
}
_SUMMARIES: Final = {
    WebhookEvent.RUNNING: "A job began to run on a backend",
    WebhookEvent.SUCCEEDED: "A job succeeded",
    WebhookEvent.FAILED: "A job failed",
    WebhookEvent.CANCELED: "A job was canceled",
    WebhookEvent.TEST: "A test that was asked for",
}
_HEADERS: Final = {
    "webhook-id": "Of the delivery, the same at each attempt: what came once need not be done twice.",
    "webhook-timestamp": "Of the attempt, in seconds since the epoch: refuse what is older than five minutes.",
    "webhook-signature": "`v1,` and HMAC-SHA256 over id, timestamp and body in base64; two of them, with a blank "
    "between, while two secrets are good.",
}


def described() -> dict[str, Any]:
    """For the document's section on what this service sends."""
    return {str(event): {"post": _operation(event)} for event in WebhookEvent}


def _operation(event: WebhookEvent) -> dict[str, Any]:
    test = event is WebhookEvent.TEST
    name = (TestWebhook if test else JobWebhook).__name__
    content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    if test or event is WebhookEvent.FAILED:
        content["example"] = _TEST if test else _SENT
    return {
        "summary": _SUMMARIES[event],
        "tags": ["webhooks"],
        "parameters": [
            {
                "name": header,
                "in": "header",
                "required": True,
                "schema": {"type": "string"},
                "description": says,
            }
            for header, says in _HEADERS.items()
        ],
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {
            "2XX": {"description": "Taken. Anything else is tried again."},
            "410": {"description": "Never again: the webhook is disabled."},
        },
    }

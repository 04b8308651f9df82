"""The errors of this service: one table of codes, one tree of exceptions.

    ServiceError                      anything that is told to a caller by code
    ├── Refused                       the request is at fault
    │   ├── ValidationFailed          a field is (422), with field, value and bound
    │   ├── NotFound                  absent, or somebody else's: the same answer
    │   └── Conflict
    └── Unavailable                   the service is at fault, now; carries Retry-After

Never put a path, a host, a secret or a prompt into a message or into details.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final


class Code(StrEnum):
    """Every code a caller can meet, in answers or in a job's error."""

    BAD_REQUEST = "BAD_REQUEST"
    VALIDATION_ERROR = "VALIDATION_ERROR"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    NOT_ACCEPTABLE = "NOT_ACCEPTABLE"
    CONFLICT = "CONFLICT"
    GONE = "GONE"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    RANGE_NOT_SATISFIABLE = "RANGE_NOT_SATISFIABLE"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    QUEUE_LIMIT_EXCEEDED = "QUEUE_LIMIT_EXCEEDED"
    BACKEND_UNAVAILABLE = "BACKEND_UNAVAILABLE"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    NODE_NOT_AVAILABLE = "NODE_NOT_AVAILABLE"
    NODE_NOT_ALLOWED = "NODE_NOT_ALLOWED"
    INVALID_GRAPH = "INVALID_GRAPH"
    INVALID_INPUT = "INVALID_INPUT"
    COST_LIMIT_EXCEEDED = "COST_LIMIT_EXCEEDED"
    PROMPT_REFUSED = "PROMPT_REFUSED"
    EXECUTION_FAILED = "EXECUTION_FAILED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    OUTPUT_INVALID = "OUTPUT_INVALID"
    OUTPUT_LIMIT_EXCEEDED = "OUTPUT_LIMIT_EXCEEDED"
    STORAGE_FAILED = "STORAGE_FAILED"
    ATTEMPTS_EXHAUSTED = "ATTEMPTS_EXHAUSTED"
    POISON_JOB = "POISON_JOB"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    JOB_TIMEOUT = "JOB_TIMEOUT"
    NO_CAPABLE_BACKEND = "NO_CAPABLE_BACKEND"


@dataclass(frozen=True, slots=True)
class CodeInfo:
    """What the documentation says of a code; `http` is the status of an answer that carries it."""

    http: int
    means: str
    remedy: str
    retryable: bool = False
    of_job: bool = False
    """True if it is met in a job's `error` (then `generate` answers with `http`)."""


TABLE: Final[Mapping[Code, CodeInfo]] = {
    Code.BAD_REQUEST: CodeInfo(
        400, "The body is not JSON, or the request is not HTTP as it should be.", "Send valid JSON in UTF-8."
    ),
    Code.UNAUTHORIZED: CodeInfo(
        401, "The credential is absent, wrong, expired or revoked.", "Send a valid API key or token."
    ),
    Code.FORBIDDEN: CodeInfo(
        403,
        "The credential does not allow this, or the link's signature is wrong.",
        "Use a credential with the scope, or ask for the job again to get a fresh link.",
    ),
    Code.NOT_FOUND: CodeInfo(
        404, "There is no such thing, or it belongs to somebody else.", "Check the id and the path."
    ),
    Code.METHOD_NOT_ALLOWED: CodeInfo(
        405, "The path exists but not with this method.", "See the `Allow` header."
    ),
    Code.NOT_ACCEPTABLE: CodeInfo(
        406,
        "The result cannot be given in a form that `Accept` allows.",
        "Ask for one of the media types in `details.available`.",
    ),
    Code.CONFLICT: CodeInfo(409, "The job's state does not allow this.", "Read the job and decide again."),
    Code.GONE: CodeInfo(
        410, "The result was deleted, by its retention or by its owner.", "Submit the job again."
    ),
    Code.PAYLOAD_TOO_LARGE: CodeInfo(413, "The body is larger than this path accepts.", "Send less."),
    Code.UNSUPPORTED_MEDIA_TYPE: CodeInfo(
        415, "The body's media type is not accepted here.", "Send `Content-Type: application/json`."
    ),
    Code.RANGE_NOT_SATISFIABLE: CodeInfo(
        416, "The range lies outside of the file.", "`Content-Range` tells the file's size."
    ),
    Code.VALIDATION_ERROR: CodeInfo(
        422,
        "A field is absent, unknown, of the wrong type or out of range.",
        "`details.errors` names each field, its value's bound and the fault.",
    ),
    Code.IDEMPOTENCY_KEY_REUSED: CodeInfo(
        422,
        "The Idempotency-Key was used with another body in the last 24 hours.",
        "Use a new key for a new request.",
    ),
    Code.RATE_LIMIT_EXCEEDED: CodeInfo(
        429, "Too many requests in a short time.", "Wait as long as `Retry-After` says.", retryable=True
    ),
    Code.QUOTA_EXCEEDED: CodeInfo(
        429, "The day's images are used up.", "Wait for the reset time in `details`.", retryable=True
    ),
    Code.QUEUE_LIMIT_EXCEEDED: CodeInfo(
        429, "Too many jobs are waiting.", "Wait as long as `Retry-After` says.", retryable=True
    ),
    Code.BACKEND_UNAVAILABLE: CodeInfo(
        503,
        "No ComfyUI server can be reached now.",
        "Try again later, or submit a job: it waits.",
        retryable=True,
    ),
    Code.SERVICE_UNAVAILABLE: CodeInfo(
        503,
        "A part of the service is down or switched off.",
        "Wait as long as `Retry-After` says.",
        retryable=True,
    ),
    Code.INTERNAL_ERROR: CodeInfo(
        500, "A fault of this service.", "Report it with the request id.", retryable=True
    ),
    Code.MODEL_NOT_FOUND: CodeInfo(
        422,
        "No backend has the model.",
        "`details.nearest` lists similar names; `GET /models` lists all.",
        of_job=True,
    ),
    Code.NODE_NOT_AVAILABLE: CodeInfo(
        422,
        "No backend has a node that the graph needs.",
        "Install the node on a backend, or use another graph.",
        of_job=True,
    ),
    Code.NODE_NOT_ALLOWED: CodeInfo(
        422,
        "The node policy of this service does not let the caller use a node of the graph.",
        "Use another node, or ask the operator to allow it for your tier.",
        of_job=True,
    ),
    Code.INVALID_GRAPH: CodeInfo(
        422,
        "The graph cannot run: here or on the backend a check of it failed.",
        "`details` names node, input and fault.",
        of_job=True,
    ),
    Code.INVALID_INPUT: CodeInfo(
        422,
        "An input file is absent, expired, too large, of another kind than is needed, or cannot be fetched.",
        "`details` names the field; upload the file again, or send another one.",
        of_job=True,
    ),
    Code.COST_LIMIT_EXCEEDED: CodeInfo(
        422,
        "The job would take more work than the caller's tier allows at once.",
        "Ask for a smaller picture, fewer steps or fewer pictures.",
    ),
    Code.PROMPT_REFUSED: CodeInfo(
        422, "The rules of this service's operator refuse the request.", "Ask for something else."
    ),
    Code.EXECUTION_FAILED: CodeInfo(
        502, "A node of the graph failed.", "`node_id` and message name it.", of_job=True
    ),
    Code.OUT_OF_MEMORY: CodeInfo(
        502,
        "The backend ran out of memory, twice.",
        "Ask for a smaller picture or a smaller batch.",
        of_job=True,
    ),
    Code.OUTPUT_INVALID: CodeInfo(
        502,
        "The backend's output was absent, unreadable or not what it can be: the service does not believe it.",
        "Try again; if it stays, look at the backend.",
        retryable=True,
        of_job=True,
    ),
    Code.OUTPUT_LIMIT_EXCEEDED: CodeInfo(
        422,
        "The job gave more files, larger ones or more text than is taken of one job.",
        "Ask for fewer or smaller pictures.",
        of_job=True,
    ),
    Code.STORAGE_FAILED: CodeInfo(
        502,
        "The result could not be stored.",
        "Try again; if it stays, look at the storage.",
        retryable=True,
        of_job=True,
    ),
    Code.ATTEMPTS_EXHAUSTED: CodeInfo(
        502,
        "Every allowed attempt was lost.",
        "Try again; if it stays, look at the backends.",
        retryable=True,
        of_job=True,
    ),
    Code.POISON_JOB: CodeInfo(
        502, "Two backends died while running this job.", "Do not send it again unchanged.", of_job=True
    ),
    Code.DEADLINE_EXCEEDED: CodeInfo(
        502,
        "The job was not finished by its deadline.",
        "Allow more time, or try when less is waiting.",
        retryable=True,
        of_job=True,
    ),
    Code.JOB_TIMEOUT: CodeInfo(
        502, "The job ran longer than is allowed here.", "Ask for less, or raise JOB_TIMEOUT.", of_job=True
    ),
    Code.NO_CAPABLE_BACKEND: CodeInfo(
        502,
        "The backends that could run this job have been away too long.",
        "Try again when one is back.",
        retryable=True,
        of_job=True,
    ),
}


class ServiceError(Exception):
    """Anything that is told to a caller; its text is the message, safe to show."""

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        """`retry_after` is in seconds and becomes the header of the same name."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        self.retry_after = retry_after

    @property
    def http(self) -> int:
        return TABLE[self.code].http


class Refused(ServiceError):
    """The request is at fault and must change before it is sent again."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault of one field: `field` is a path such as `loras.0.weight`."""

    field: str
    message: str
    value: Any = None
    bound: Any = None


class ValidationFailed(Refused):
    """One or more fields are at fault; all of them are named at once."""

    def __init__(self, faults: Sequence[FieldError], message: str | None = None) -> None:
        shown = [
            {name: value for name, value in asdict(fault).items() if value is not None} for fault in faults
        ]
        first = faults[0]
        super().__init__(
            Code.VALIDATION_ERROR, message or f"{first.field}: {first.message}", details={"errors": shown}
        )


class NotFound(Refused):
    """Absent, or somebody else's: the caller cannot tell which."""

    def __init__(self, what: str) -> None:
        super().__init__(Code.NOT_FOUND, f"There is no such {what}.")


class Conflict(Refused):
    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(Code.CONFLICT, message, details=details)


class Unavailable(ServiceError):
    """A part of the service is away for now."""

    def __init__(
        self, message: str, *, code: Code = Code.SERVICE_UNAVAILABLE, retry_after: float = 5
    ) -> None:
        super().__init__(code, message, retry_after=retry_after)

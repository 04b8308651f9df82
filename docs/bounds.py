"""The tables of docs/LIMITS.md: every bound with its number, read from where the code keeps it."""

import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from comfy_api_service.api import parameters, reading
from comfy_api_service.api.pacing import PREVIEW_SECONDS, PROGRESS_SECONDS
from comfy_api_service.api.schemas import submission
from comfy_api_service.api.schemas.generate import BatchRequest
from comfy_api_service.cli.server import KEEP_ALIVE_SECONDS
from comfy_api_service.comfyui import streams
from comfy_api_service.comfyui.messages import MAX_FRAME
from comfy_api_service.comfyui.transport import MAX_ANSWER
from comfy_api_service.db.connecting import LOCK_SECONDS, STATEMENT_SECONDS
from comfy_api_service.db.keys import KEY_SECONDS
from comfy_api_service.db.transitions import POISON_AFTER
from comfy_api_service.domain import generation_request as field
from comfy_api_service.domain import leases, redelivery, scheduling
from comfy_api_service.domain.breaker import FIRST_PAUSE, LONGEST_PAUSE, THRESHOLD
from comfy_api_service.domain.checking.rules import Rules
from comfy_api_service.domain.graph.problem import ENOUGH
from comfy_api_service.domain.node_policy import NodePolicy
from comfy_api_service.domain.templates import fitting
from comfy_api_service.domain.upload import MAX_PIXELS
from comfy_api_service.outbound import fetch, post
from comfy_api_service.redis_link.link import ANSWER_SECONDS
from comfy_api_service.services import access, held, inputs, keys, passwords, throttle, webhooks, workflows
from comfy_api_service.settings import Settings
from comfy_api_service.signals.base import MAILBOX_EVENTS
from comfy_api_service.storage.presign import LONGEST_SECONDS
from comfy_api_service.worker import collect, contact, driver, oversight, run, upkeep

GRAPH: Final = Rules(NodePolicy.core())
UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


class Bound(NamedTuple):
    """One line: what is bounded, by how much, which setting changes it, and what is answered beyond it."""

    what: str
    most: str
    setting: str = ""
    beyond: str = ""


def number(value: float) -> str:
    """With spaces between thousands, as these pages write it."""
    return f"{value:,.10g}".replace(",", " ")


def size(value: int) -> str:
    """In the largest binary unit that divides it."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value % unit == 0:
            return f"{value // unit} {name}"
    return f"{number(value)} bytes"


def lasting(seconds: float) -> str:
    """In the largest unit that divides it; shorter than a second in milliseconds."""
    if seconds < 1:
        return f"{number(seconds * 1000)} ms"
    unit, name = next((unit, name) for unit, name in UNITS if seconds % unit == 0 or unit == 1)
    return f"{number(seconds / unit)} {name}{'' if seconds == unit else 's'}"


def span(least: float, most: float) -> str:
    """Both ends included."""
    return f"{number(least)} to {number(most)}"


def _set(name: str) -> float:
    """A setting's default."""
    value = Settings.model_fields[name.lower()].default
    assert isinstance(value, int | float)  # noqa: S101 - it goes into a page that a test compares
    return value


def _requests() -> Sequence[Bound]:
    batch = next(
        m.max_length for m in BatchRequest.model_fields["requests"].metadata if hasattr(m, "max_length")
    )
    return [
        Bound("JSON body", size(int(_set("MAX_BODY_SIZE"))), "MAX_BODY_SIZE", "PAYLOAD_TOO_LARGE"),
        Bound("prompt", f"{span(field.PROMPT_MIN, field.PROMPT_MAX)} characters", "", "VALIDATION_ERROR"),
        Bound(
            "width, height",
            f"{span(field.SIZE_MIN, field.SIZE_MAX)}, divisible by {field.SIZE_STEP}",
            "",
            "VALIDATION_ERROR",
        ),
        Bound("steps", span(field.STEPS_MIN, field.STEPS_MAX), "", "VALIDATION_ERROR"),
        Bound("pictures of one request", span(field.BATCH_MIN, field.BATCH_MAX), "", "VALIDATION_ERROR"),
        Bound("LoRAs; ControlNets", f"{field.LORAS_MAX}; {field.CONTROLNETS_MAX}", "", "VALIDATION_ERROR"),
        Bound("requests of one batch", number(batch), "", "VALIDATION_ERROR"),
        Bound(
            "priority, within the account's own jobs",
            span(-submission.PRIORITY_MAX, submission.PRIORITY_MAX),
            "",
            "VALIDATION_ERROR",
        ),
        Bound(
            "deadline",
            f"{submission.DEADLINE_MIN} seconds to {lasting(submission.DEADLINE_MAX)}",
            "",
            "VALIDATION_ERROR",
        ),
        Bound("attempts (default 3)", f"1 to {submission.ATTEMPTS_MAX}", "", "VALIDATION_ERROR"),
        Bound(
            "labels; characters of a value",
            f"{submission.LABELS_MAX}; {submission.LABEL_VALUE_MAX}",
            "",
            "VALIDATION_ERROR",
        ),
        Bound(
            "time that a key for repeating is remembered", lasting(KEY_SECONDS), "", "IDEMPOTENCY_KEY_REUSED"
        ),
        Bound(
            "time that `generate` waits (default)",
            f"{lasting(reading.WAIT_MAX)} ({lasting(reading.WAIT_DEFAULT)})",
            "",
            "answers 202, the job goes on",
        ),
        Bound(
            "entries of a page (default)",
            f"{parameters.PAGE_MAX} ({parameters.PAGE_DEFAULT})",
            "",
            "VALIDATION_ERROR",
        ),
        Bound(
            "side of a thumbnail",
            f"{span(parameters.THUMBNAIL_MIN, parameters.THUMBNAIL_MAX)} pixels",
            "",
            "VALIDATION_ERROR",
        ),
        Bound("idle connection is kept", lasting(KEEP_ALIVE_SECONDS)),
    ]


def _graphs() -> Sequence[Bound]:
    return [
        Bound("nodes; in a row", f"{number(GRAPH.max_nodes)}; {GRAPH.max_chain}", "", "INVALID_GRAPH"),
        Bound("JSON values", number(GRAPH.max_values), "", "INVALID_GRAPH"),
        Bound("JSON, data URLs apart", size(GRAPH.max_bytes), "", "INVALID_GRAPH"),
        Bound("lists and objects inside of each other", number(GRAPH.max_depth), "", "INVALID_GRAPH"),
        Bound("characters of a text", number(GRAPH.max_text), "", "INVALID_GRAPH"),
        Bound("problems after which a check ends", number(ENOUGH)),
        Bound("pixels of one batch", f"{number(GRAPH.max_pixels)}", "", "COST_LIMIT_EXCEEDED"),
        Bound("pictures of the whole graph", number(GRAPH.max_pictures), "", "COST_LIMIT_EXCEEDED"),
        Bound(
            "characters of all texts that it puts together",
            number(GRAPH.max_built),
            "",
            "COST_LIMIT_EXCEEDED",
        ),
        Bound(
            "stored workflows of an account; versions of one",
            f"{number(workflows.MOST)}; {workflows.MOST_VERSIONS}",
            "",
            "CONFLICT",
        ),
        Bound(
            "parameters of a workflow; inputs that one sets",
            f"{fitting.PARAMETERS_MAX}; {fitting.TARGETS_MAX}",
            "",
            "VALIDATION_ERROR",
        ),
    ]


def _files() -> Sequence[Bound]:
    return [
        Bound("upload", size(int(_set("MAX_UPLOAD_SIZE"))), "MAX_UPLOAD_SIZE", "PAYLOAD_TOO_LARGE"),
        Bound("pixels of an input picture", number(MAX_PIXELS), "", "INVALID_INPUT"),
        Bound("input files of a job", number(inputs.MOST), "", "INVALID_INPUT"),
        Bound("an upload is kept", lasting(_set("UPLOAD_TTL")), "UPLOAD_TTL", "INVALID_INPUT"),
        Bound(
            "fetching an input from a URL; redirects",
            f"{lasting(fetch.SECONDS)}; {fetch.REDIRECTS}",
            "",
            "INVALID_INPUT",
        ),
        Bound(
            "one file of a result",
            size(int(_set("ARTIFACT_LIMIT"))),
            "ARTIFACT_LIMIT",
            "OUTPUT_LIMIT_EXCEEDED",
        ),
        Bound("files of one job", number(run.MOST_OUTPUTS), "", "OUTPUT_LIMIT_EXCEEDED"),
        Bound(
            "characters of all texts of one job", number(collect.MAX_JOB_TEXT), "", "OUTPUT_LIMIT_EXCEEDED"
        ),
        Bound(
            "life of a signed link of an S3 store, at most",
            lasting(LONGEST_SECONDS),
            "TIERS_FILE",
            "FORBIDDEN",
        ),
        Bound("rows of finished jobs are kept", lasting(_set("JOB_RETENTION")), "JOB_RETENTION", "NOT_FOUND"),
        Bound(
            "results that wait on a worker's disk while the store is away",
            f"{size(int(_set('PARKED_LIMIT')))}, {lasting(_set('PARKED_TIMEOUT'))}",
            "PARKED_LIMIT, PARKED_TIMEOUT",
            "STORAGE_FAILED",
        ),
    ]


def _callers() -> Sequence[Bound]:
    return [
        Bound(
            "jobs that wait, over all accounts",
            number(_set("QUEUE_LIMIT")),
            "QUEUE_LIMIT",
            "QUEUE_LIMIT_EXCEEDED",
        ),
        Bound(
            "reads, for each submission of the tier",
            number(throttle.READS),
            "TIERS_FILE",
            "RATE_LIMIT_EXCEEDED",
        ),
        Bound(
            "uploads, for each submission of the tier",
            number(throttle.UPLOADS),
            "TIERS_FILE",
            "RATE_LIMIT_EXCEEDED",
        ),
        Bound(
            f"logins in {lasting(throttle.LOGIN_SECONDS)}: one name from one address; all names",
            f"{throttle.LOGINS}; {throttle.LOGINS_OF_ADDRESS}",
            "RATE_LIMIT_ENABLED",
            "RATE_LIMIT_EXCEEDED",
        ),
        Bound(
            "requests a minute without a good credential, from one address",
            number(throttle.STRANGERS),
            "RATE_LIMIT_ENABLED",
            "RATE_LIMIT_EXCEEDED",
        ),
        Bound("API keys of an account", number(keys.MOST), "", "CONFLICT"),
        Bound(
            "characters of a password", span(passwords.SHORTEST, passwords.LONGEST), "", "VALIDATION_ERROR"
        ),
        Bound(
            "an access token is good",
            lasting(60 * _set("ACCESS_TOKEN_EXPIRE_MINUTES")),
            "ACCESS_TOKEN_EXPIRE_MINUTES",
            "UNAUTHORIZED",
        ),
        Bound(
            "a login lasts without being refreshed",
            lasting(86_400 * _set("REFRESH_TOKEN_EXPIRE_DAYS")),
            "REFRESH_TOKEN_EXPIRE_DAYS",
            "UNAUTHORIZED",
        ),
        Bound("a ticket is good, once", lasting(access.TICKET_SECONDS), "", "UNAUTHORIZED"),
        Bound("what was read of a credential is believed", lasting(access.FRESH_SECONDS)),
    ]


def _listeners() -> Sequence[Bound]:
    return [
        Bound(
            "progress of a job", f"{number(1 / PROGRESS_SECONDS)} a second", "", "newer ones replace older"
        ),
        Bound("previews of a job", f"{number(1 / PREVIEW_SECONDS)} a second", "", "newer ones replace older"),
        Bound(
            "events that wait for a listener",
            number(MAILBOX_EVENTS),
            "",
            "it is told to look into the database",
        ),
    ]


def _workers() -> Sequence[Bound]:
    return [
        Bound("prompts in a backend's queue", number(driver.PROMPTS), "WORKER_CONCURRENCY"),
        Bound("one run of a prompt", lasting(_set("JOB_TIMEOUT")), "JOB_TIMEOUT", "JOB_TIMEOUT"),
        Bound(
            "silence of a running prompt",
            lasting(_set("STALL_TIMEOUT")),
            "STALL_TIMEOUT",
            "the job goes on elsewhere",
        ),
        Bound(
            "a backend that takes prompts and runs nothing",
            lasting(oversight.ZOMBIE_SECONDS),
            "",
            "its jobs go on elsewhere; no work until a small prompt of the worker's own came back, or for "
            f"{lasting(contact.SUSPICION_SECONDS)} if it lacks the nodes for one",
        ),
        Bound(
            "a backend that nobody can reach",
            lasting(oversight.DEAD_SECONDS),
            "",
            "its jobs run again elsewhere",
        ),
        Bound(
            "faults in a row that open a backend's breaker; its pause",
            f"{THRESHOLD}; {lasting(FIRST_PAUSE)}, up to {lasting(LONGEST_PAUSE)}",
        ),
        Bound("backends that die under one job", number(POISON_AFTER), "", "POISON_JOB"),
        Bound(
            "a need that no registered backend satisfies",
            lasting(_set("UNSERVABLE_TIMEOUT")),
            "UNSERVABLE_TIMEOUT",
            "NO_CAPABLE_BACKEND",
        ),
        Bound("inventory of a backend is read anew", lasting(contact.INVENTORY_SECONDS)),
        Bound(
            "a file slower than " + size(streams.SLOWEST) + " a second",
            lasting(streams.PATIENCE),
            "",
            "the job runs again",
        ),
        Bound("an answer of a backend; a frame of its socket", f"{size(MAX_ANSWER)}; {size(MAX_FRAME)}"),
        Bound(
            "a worker proves that it lives; posts nothing more after; is replaced after",
            f"{lasting(leases.LIFE_SECONDS)}; {lasting(leases.POSTING_SECONDS)}; {lasting(leases.DEAD_SECONDS)}",
        ),
        Bound("lanes that a claim looks at", number(scheduling.MAX_LANES)),
        Bound("an account may be behind another by", f"{scheduling.WINDOW_JOBS} jobs' cost"),
        Bound(
            "a stop signal waits for running jobs",
            lasting(_set("SHUTDOWN_GRACE")),
            "SHUTDOWN_GRACE",
            "adopted later",
        ),
        Bound("orphans in the store are swept after", lasting(upkeep.ORPHAN_SECONDS)),
    ]


def _servers() -> Sequence[Bound]:
    return [
        Bound(
            "connections of one process to PostgreSQL",
            number(_set("DATABASE_POOL_SIZE")),
            "DATABASE_POOL_SIZE",
        ),
        Bound(
            "one statement; waiting for a lock",
            f"{lasting(STATEMENT_SECONDS)}; {lasting(LOCK_SECONDS)}",
            "",
            "SERVICE_UNAVAILABLE",
        ),
        Bound(
            "an answer of the prompt hook",
            lasting(_set("PROMPT_HOOK_TIMEOUT")),
            "PROMPT_HOOK_TIMEOUT",
            "as `PROMPT_HOOK_ON_FAILURE` says",
        ),
        Bound("the answer of a webhook's receiver", lasting(post.SECONDS), "", "tried again"),
        Bound("webhooks of an account", number(webhooks.MOST), "", "CONFLICT"),
        Bound(
            "deliveries that a process has open; of one account; to receivers that keep failing",
            f"{number(held.AT_ONCE)}; {number(held.OF_ONE_ACCOUNT)}; {number(held.FAILING_LANES)}",
            "",
            "the others wait for their turn",
        ),
        Bound(
            "names of receivers that a process looks up at once; for one account",
            f"{number(post.LOOK_UPS)}; {number(post.OF_ONE_ASKER)}",
            "",
            "the others wait for their turn",
        ),
        Bound(
            "pause after a delivery's first failure; the longest; all in all",
            f"{lasting(_set('WEBHOOK_RETRY_DELAY'))}; {lasting(redelivery.LONGEST_PAUSE)}; "
            f"{lasting(redelivery.DELIVERY_SECONDS)}",
            "WEBHOOK_RETRY_DELAY",
            "the delivery fails; it can be replayed",
        ),
        Bound(
            "traces that callers ask to be recorded, in each process",
            f"{number(_set('TRACE_CALLERS_PER_SECOND'))} a second",
            "TRACE_CALLERS_PER_SECOND",
            "your own sampler decides",
        ),
        Bound("an answer of Redis", lasting(ANSWER_SECONDS), "", "goes on without it"),
    ]


GROUPS: Final[Mapping[str, Sequence[Bound]]] = {
    "requests": _requests(),
    "graphs": _graphs(),
    "files": _files(),
    "callers": _callers(),
    "listeners": _listeners(),
    "workers": _workers(),
    "servers": _servers(),
}


def filled(page: str) -> str:
    """The page with its tables made anew, each between two marks."""

    def table(found: "re.Match[str]") -> str:
        lines = ["| what | bound | setting | beyond it |", "|---|---|---|---|"]
        for bound in GROUPS[found[1]]:
            settings = ", ".join(f"`{name}`" for name in bound.setting.split(", ") if name)
            beyond = f"`{bound.beyond}`" if bound.beyond.isupper() else bound.beyond
            lines.append(f"| {bound.what} | {bound.most} | {settings} | {beyond} |")
        return "\n".join([f"<!-- made by make docs: {found[1]} -->", *lines, "<!-- end -->"])

    return re.sub(r"<!-- made by make docs: (\w+) -->.*?<!-- end -->", table, page, flags=re.DOTALL)

"""What a body asks for: a simple generation, a whole graph, or a stored workflow with values."""

from pydantic_core import from_json
from starlette.requests import Request

from comfy_api_service.api.reading import idempotency_key, parse, read_json
from comfy_api_service.api.schemas.submission import GraphJobRequest, JobRequest, TemplateJobRequest
from comfy_api_service.domain.submission import Order


async def read_order(request: Request) -> Order:
    """Raises BAD_REQUEST, VALIDATION_ERROR."""
    return order_from(await read_json(request), idempotency_key(request))


def order_from(body: bytes, key: str | None) -> Order:
    """As `read_order`, from a part of another body perhaps."""
    return parse(_kind(body), body).order(key)


def _kind(body: bytes) -> type[JobRequest | GraphJobRequest | TemplateJobRequest]:
    """By the fields that are there; almost all are simple, and those are not read twice."""
    if b'"workflow' not in body and b"\\u" not in body:
        return JobRequest
    try:
        document = from_json(body)  # as the reading that follows
    except ValueError:
        return JobRequest  # whose reading says what is wrong
    if not isinstance(document, dict):
        return JobRequest
    if "workflow_id" in document:
        return TemplateJobRequest
    return GraphJobRequest if "workflow" in document else JobRequest

"""The gate where traces are on: a span for each request, in the caller's trace if it names one."""

from typing import Any, Final

from starlette.types import Scope

from comfy_api_service.api.gate import QUIET, Exchange, Gate, job_of, template_of
from comfy_api_service.telemetry.traceparent import place_of_caller
from comfy_api_service.telemetry.tracing import Attributes, Request, Tracing

KNOWN_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"}
)
_SPAN: Final = "comfy_span"


class TracedGate(Gate):
    """Paths that are asked all the time have no spans."""

    def __init__(self, tracing: Tracing, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tracing = tracing

    async def _answer(self, exchange: Exchange, scope: Scope) -> None:
        if scope["path"] not in QUIET:
            scope[_SPAN] = self._tracing.begin_request(
                _method(exchange),
                place_of_caller(scope["headers"]),
                {
                    "http.request.method": _method(exchange),
                    "url.scheme": scope["comfy_scheme"],
                    "comfyui.request.id": exchange.request_id,
                },
            )
        await super()._answer(exchange, scope)

    def _note(self, exchange: Exchange, scope: Scope, seconds: float) -> None:
        super()._note(exchange, scope, seconds)
        request: Request | None = scope.get(_SPAN)
        if request is None:
            return
        template = template_of(scope)
        name = _method(exchange) if template == "unmatched" else f"{_method(exchange)} {template}"
        fault = str(exchange.status) if 500 <= exchange.status < 600 else None
        request.end(name, _attributes(exchange, scope, template), fault=fault)


def _method(exchange: Exchange) -> str:
    return exchange.method if exchange.method in KNOWN_METHODS else "_OTHER"


def _attributes(exchange: Exchange, scope: Scope, template: str) -> Attributes:
    """No path and no query: only what the program itself calls them."""
    known: dict[str, str | int] = {"http.response.status_code": exchange.status}
    if template != "unmatched":
        known["http.route"] = template
    job_id = job_of(scope)
    if job_id is not None:
        known["comfyui.job.id"] = job_id
    account_id = scope.get("comfy_account_id")
    if account_id is not None:
        known["comfyui.account.id"] = account_id
    return known

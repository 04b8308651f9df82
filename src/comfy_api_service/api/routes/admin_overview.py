"""What operators see of the whole: figures, tiers, all jobs, the audit log, use for billing.

All of this also answers below `/api/v1`.
"""

from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from comfy_api_service.api import cursors, overview
from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import answers, errors, gives
from comfy_api_service.api.examples import JOB
from comfy_api_service.api.parameters import PAGE_DEFAULT, Cursor, Limit, UserQuery
from comfy_api_service.api.schemas.accounts import EXAMPLE_USER, NO_NUL, example_limits
from comfy_api_service.api.schemas.admin import AccountJobList, EntryList, StatsAnswer, TierList
from comfy_api_service.api.schemas.base import EXAMPLE_REQUEST, EXAMPLE_TIME
from comfy_api_service.api.spreadsheets import Line, csv_of
from comfy_api_service.api.state import Administrator, base_of, services_of
from comfy_api_service.domain.errors import Code, FieldError, ValidationFailed
from comfy_api_service.domain.job import Status
from comfy_api_service.services.usage import Usages

_STATS: Final[dict[str, Any]] = {
    "users": {"by_tier": {"basic": 3, "free": 12}, "administrators": 1, "disabled": 0},
    "keys": 17,
    "jobs": {
        "queued": 5,
        "running": 2,
        "queued_by_tier": {"free": 5},
        "oldest_queued_at": EXAMPLE_TIME,
        "oldest_wait": 12.5,
    },
    "backends": {"online": 2, "degraded": 0, "draining": 0, "offline": 1},
    "usage": {
        "today": {"images": 120, "gpu_seconds": 431.5},
        "last_30_days": {"images": 4100, "gpu_seconds": 15020.0},
    },
}
_ENTRY: Final[dict[str, Any]] = {
    "id": 42,
    "at": EXAMPLE_TIME,
    "action": "user.change",
    "actor": EXAMPLE_USER,
    "target": EXAMPLE_USER,
    "address": "203.0.113.7",
    "request_id": EXAMPLE_REQUEST,
    "data": {"tier": "pro"},
}
COLUMNS: Final = ("day", "user_id", "name", "tier", "images", "gpu_seconds")
router = APIRouter(tags=["admin"], default_response_class=Response)


def _day(name: str, what: str) -> Any:
    return Query(alias=name, description=what, json_schema_extra={"format": "date"}, max_length=10)


Statuses = Annotated[list[Status] | None, Query(max_length=5, description="Any of these.")]
Action = Annotated[str | None, Query(max_length=40, pattern=NO_NUL, description="Exactly, as `user.change`.")]
About = Annotated[str | None, Query(max_length=100, pattern=NO_NUL, description="The actor or the target.")]
First = Annotated[str, _day("from", "The first UTC day, YYYY-MM-DD.")]
Last = Annotated[str, _day("to", "The last UTC day, YYYY-MM-DD.")]


@router.get(
    "/admin/stats",
    operation_id="admin_get_stats",
    summary="Figures of the whole service",
    responses={**answers(200, StatsAnswer, "Now.", example=_STATS), **errors()},
)
async def get_stats(request: Request, _caller: Administrator) -> Response:
    """From counters and daily sums: it costs the same however many jobs there are."""
    services = services_of(request)
    return answer(overview.stats(await services.overview.stats(), services.clock.now()))


@router.get(
    "/admin/tiers",
    operation_id="admin_list_tiers",
    summary="What the tiers allow now",
    responses={
        **answers(
            200,
            TierList,
            "All of them.",
            example={"tiers": [{"name": "basic", "limits": example_limits()}]},
        ),
        **errors(),
    },
)
async def list_tiers(request: Request, _caller: Administrator) -> Response:
    """From `TIERS_FILE`; administrators have no limits, whatever their tier."""
    tiers = services_of(request).users.tiers
    return answer({"tiers": [{"name": name, "limits": asdict(limits)} for name, limits in tiers.items()]})


@router.get(
    "/admin/jobs",
    operation_id="admin_list_jobs",
    summary="Jobs of all accounts, or of one, newest first",
    responses={
        **answers(
            200,
            AccountJobList,
            "A page.",
            example={"jobs": [{**JOB, "user_id": EXAMPLE_USER}], "next_cursor": None},
        ),
        **errors(Code.VALIDATION_ERROR),
    },
)
async def list_jobs(
    request: Request,
    caller: Administrator,
    status: Statuses = None,
    user_id: UserQuery = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    page = await services_of(request).overview.jobs(
        caller.account,
        statuses=frozenset(status or ()),
        account_id=user_id,
        cursor=cursors.decode(cursors.JOBS, cursor),
        limit=limit,
    )
    jobs = [overview.job(view, base_of(request)) for view in page.items]
    return answer({"jobs": jobs, "next_cursor": cursors.encode(cursors.JOBS, page.next_cursor)})


@router.get(
    "/admin/audit",
    operation_id="admin_list_audit",
    summary="Who did what, newest first",
    responses={
        **answers(200, EntryList, "A page.", example={"entries": [_ENTRY], "next_cursor": None}),
        **errors(Code.VALIDATION_ERROR),
    },
)
async def list_audit(
    request: Request,
    _caller: Administrator,
    action: Action = None,
    about: About = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    """Acts of operators, and what happened to credentials. No entry holds a secret."""
    before = cursors.decode(cursors.AUDIT, cursor)
    page = await services_of(request).overview.audit(
        before=None if before is None else int(before), limit=limit, action=action, about=about
    )
    entries = [overview.entry(one) for one in page.items]
    return answer({"entries": entries, "next_cursor": cursors.encode(cursors.AUDIT, page.next_cursor)})


@router.get(
    "/admin/usage.csv",
    operation_id="admin_export_usage",
    summary="What every account used, a line an account and day, for billing",
    responses={
        **gives(200, ("text/csv",), f"Columns: {', '.join(COLUMNS)}. Sorted by day and account."),
        **errors(Code.VALIDATION_ERROR),
    },
)
async def export_usage(request: Request, _caller: Administrator, first: First, last: Last) -> Response:
    """Images that were produced and charged, on the day of their submission. Names that a spreadsheet would take for a
    formula have an apostrophe before them.
    """
    begin, end = _days(first, last)
    body = await csv_of(COLUMNS, _lines(services_of(request).usages, begin, end))
    headers = {"Content-Disposition": f'attachment; filename="usage_{begin}_{end}.csv"'}
    return StreamingResponse(body, 200, headers, "text/csv; charset=utf-8")


def _days(first: str, last: str) -> tuple[str, str]:
    """Raises `ValidationFailed`."""
    for field, text in (("from", first), ("to", last)):
        try:
            real = date.fromisoformat(text).isoformat() == text
        except ValueError:
            real = False
        if not real:
            raise ValidationFailed([FieldError(field, "must be a day, as 2026-01-31")])
    if last < first:
        raise ValidationFailed([FieldError("to", "must not lie before `from`")])
    return first, last


async def _lines(usages: Usages, first: str, last: str) -> AsyncIterator[Line]:
    async for line in usages.export(first, last):
        yield line.day, line.account_id, line.name, line.tier, line.images, line.gpu_seconds

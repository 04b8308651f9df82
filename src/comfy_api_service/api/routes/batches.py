"""Several generations in one call, each taken or refused on its own."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from comfy_api_service.api import shapes
from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import (
    APPLIED,
    IDEMPOTENCY,
    LOCATION,
    OF_BODIES,
    PREFER,
    REPLAYED,
    answers,
    body_of,
    errors,
)
from comfy_api_service.api.examples import BATCH, BATCH_REQUEST
from comfy_api_service.api.orders import order_from
from comfy_api_service.api.parameters import BatchPath, Flag
from comfy_api_service.api.reading import idempotency_key, parse, preferred_wait, read_json
from comfy_api_service.api.routes.generate import require_backend
from comfy_api_service.api.schemas.generate import BatchAnswer, BatchRequest
from comfy_api_service.api.state import Caller, Submitting, base_of, note_limits, services_of
from comfy_api_service.api.waiting import wait_for_caller
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.errors import Code, ServiceError
from comfy_api_service.domain.job import TERMINAL
from comfy_api_service.domain.submission import Order
from comfy_api_service.services.throttle import rate_limited
from comfy_api_service.services.views import Batch

PATH: Final = "/api/v1/generate/batch"
_HEADERS: Final = {"Location": LOCATION, "Idempotent-Replayed": REPLAYED, "Preference-Applied": APPLIED}
router = APIRouter(tags=["generate"], default_response_class=Response)


@router.post(
    PATH,
    status_code=201,
    operation_id="generate_batch",
    summary="Several generations in one call",
    responses={
        **answers(201, BatchAnswer, "All have ended.", example=BATCH, headers=_HEADERS),
        **answers(202, BatchAnswer, "Some go on.", example=BATCH, headers=_HEADERS),
        **errors(*OF_BODIES, Code.IDEMPOTENCY_KEY_REUSED, Code.BACKEND_UNAVAILABLE),
    },
    openapi_extra=body_of(BatchRequest, BATCH_REQUEST, IDEMPOTENCY, PREFER),
)
async def generate_batch(request: Request, caller: Submitting, wait: Flag = True) -> Response:
    """Waits for all as `generate` does, or with `wait=false` for none. A request that is refused stands in
    the answer with its error; the others are run. An `Idempotency-Key` stands for the whole batch, unless
    nothing of it was taken.
    """
    requests = parse(BatchRequest, await read_json(request)).requests
    key = idempotency_key(request)
    if wait:
        require_backend(request)
    orders = [_order(one) for one in requests]
    canonical = _canonical(requests, orders)  # before the buckets: what they hold is not part of the request
    orders = await _granted(request, caller, orders)
    batch = await services_of(request).batches.submit(caller, orders, body=canonical, idempotency_key=key)
    if wait:
        batch = await _wait(request, caller, batch)
    return _answer(request, batch, chosen=wait)


@router.get(PATH, include_in_schema=False)
async def not_allowed() -> Response:
    """Else `GET /api/v1/generate/{job_id}` would look for a job of the name `batch`."""
    raise HTTPException(405)


@router.get(
    "/api/v1/batches/{batch_id}",
    operation_id="get_batch",
    summary="A batch with its jobs",
    responses={**answers(200, BatchAnswer, "The batch now.", example=BATCH), **errors(Code.NOT_FOUND)},
)
async def get_batch(request: Request, caller: Caller, batch_id: BatchPath) -> Response:
    batch = await services_of(request).batches.get(caller, batch_id)
    return answer(shapes.batch(batch, base_of(request)))


def _order(one: Any) -> Order | ServiceError:
    try:
        return order_from(to_json(one, inf_nan_mode="constants"), None)
    except ServiceError as refused:
        return refused


async def _granted(
    request: Request, caller: Account, orders: list[Order | ServiceError]
) -> list[Order | ServiceError]:
    """Each counts as a submission, the first as the call itself: those beyond what may be made now are refused."""
    valid = [index for index, order in enumerate(orders) if isinstance(order, Order)]
    if len(valid) > 1:
        taken = await services_of(request).throttle.submissions(caller, units=len(valid) - 1)
        if taken is not None:
            note_limits(request, taken)
            for index in valid[1 + taken.granted :]:
                orders[index] = rate_limited(taken)
    return orders


def _canonical(requests: Sequence[Any], orders: Sequence[Order | ServiceError]) -> bytes:
    """The same for every spelling of the same batch; what was refused stands as it came."""
    bodies = [
        order.body if isinstance(order, Order) else json.dumps(one, sort_keys=True).encode()
        for one, order in zip(requests, orders, strict=True)
    ]
    return b"\n".join((b"batch", *bodies))


async def _wait(request: Request, caller: Account, batch: Batch) -> Batch:
    """Until all have ended, at most as long as the caller would wait; then the batch as it is."""
    seconds, _ = preferred_wait(request)
    services = services_of(request)
    ends = time.monotonic() + seconds

    async def all_of_them() -> None:
        await asyncio.gather(
            *(
                services.watcher.wait(caller, item.view.job.id, timeout=max(ends - time.monotonic(), 0))
                for item in batch.items
                if item.view is not None
            )
        )

    await wait_for_caller(request, all_of_them())
    return replace(await services.batches.get(caller, batch.id), replayed=batch.replayed)


def _answer(request: Request, batch: Batch, *, chosen: bool) -> Response:
    shape = shapes.batch(batch, base_of(request))
    headers = {"Location": shape["status_url"]}
    if batch.replayed:
        headers["Idempotent-Replayed"] = "true"
    seconds, preferred = preferred_wait(request)
    if chosen and preferred:
        headers["Preference-Applied"] = f"wait={seconds:.0f}"
    ended = all(item.view is None or item.view.job.state in TERMINAL for item in batch.items)
    return answer(shape, 201 if ended else 202, headers)

"""Webhooks: who is told of jobs, and what became of the telling."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from comfy_api_service.api import cursors
from comfy_api_service.api import webhook_shapes as shapes
from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import OF_BODIES, answers, body_of, empty, errors
from comfy_api_service.api.parameters import PAGE_DEFAULT, Cursor, DeliveryPath, Limit, WebhookPath
from comfy_api_service.api.reading import parse, read_json
from comfy_api_service.api.schemas.base import EXAMPLE_TIME
from comfy_api_service.api.schemas.webhooks import (
    DELIVERY,
    NEW_SECRET,
    WEBHOOK,
    DeliveryAnswer,
    DeliveryList,
    NewSecretAnswer,
    NewWebhookAnswer,
    SecretAnswer,
    WebhookAnswer,
    WebhookChange,
    WebhookDeliveryList,
    WebhookList,
    WebhookRequest,
)
from comfy_api_service.api.state import Caller, Changing, actor_of, services_of
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.webhook import DeliveryState, WebhookEvent
from comfy_api_service.services.webhooks import Changes

PATH: Final = "/api/v1/webhooks"
_NEW: Final = {**WEBHOOK, "secret": NEW_SECRET}
_SECRET: Final = {"created_at": EXAMPLE_TIME, "old_secret_until": None}
_LIST: Final[dict[str, Any]] = {"deliveries": [DELIVERY], "next_cursor": None}
_WAITING: Final = {
    **DELIVERY,
    "status": "waiting",
    "attempts": 0,
    "next_attempt_at": EXAMPLE_TIME,
    "ended_at": None,
    "last_status": None,
    "log": [],
}
OfState = Annotated[
    DeliveryState | None, Query(alias="status", description="Those that wait, were delivered, or failed.")
]
router = APIRouter(tags=["webhooks"], default_response_class=Response)


@router.get(
    PATH,
    operation_id="list_webhooks",
    summary="Own webhooks, newest first",
    responses={
        **answers(200, WebhookList, "All of them.", example={"webhooks": [WEBHOOK], "next_cursor": None}),
        **errors(),
    },
)
async def list_webhooks(request: Request, caller: Caller) -> Response:
    found = await services_of(request).webhooks.of_account(caller.id)
    return answer({"webhooks": [shapes.webhook(one) for one in found], "next_cursor": None})


@router.post(
    PATH,
    status_code=201,
    operation_id="create_webhook",
    summary="Be told of one's jobs",
    responses={
        **answers(201, NewWebhookAnswer, "The webhook; its secret is shown this once.", example=_NEW),
        **errors(*OF_BODIES, Code.CONFLICT),
    },
    openapi_extra=body_of(WebhookRequest, {"url": WEBHOOK["url"], "events": WEBHOOK["events"]}),
)
async def create_webhook(request: Request, caller: Changing) -> Response:
    """Each event of each of the account's jobs from now on is posted to `url`, signed by Standard Webhooks."""
    given = parse(WebhookRequest, await read_json(request))
    made, secret = await services_of(request).webhooks.create(
        caller.account.id,
        actor_of(request, caller),
        url=given.url,
        events=[WebhookEvent(one) for one in given.events],
    )
    return answer({**shapes.webhook(made), "secret": secret}, 201)


@router.get(
    f"{PATH}/secret",
    operation_id="get_webhook_secret",
    summary="The secret for jobs' own URLs: since when it holds",
    responses={**answers(200, SecretAnswer, "Never the secret itself.", example=_SECRET), **errors()},
)
async def get_webhook_secret(request: Request, caller: Caller) -> Response:
    return answer(shapes.account_secret(await services_of(request).webhooks.account_secret(caller.id)))


@router.post(
    f"{PATH}/secret",
    status_code=201,
    operation_id="rotate_webhook_secret",
    summary="A new secret for jobs' own URLs",
    responses={
        **answers(
            201, NewSecretAnswer, "The secret, shown this once.", example={**_SECRET, "secret": NEW_SECRET}
        ),
        **errors(),
    },
)
async def rotate_webhook_secret(request: Request, caller: Changing) -> Response:
    """Deliveries to the `webhook_url` of a job are signed with it; for a day with the one before, too."""
    found, secret = await services_of(request).webhooks.rotate_account_secret(
        caller.account.id, actor_of(request, caller)
    )
    return answer({**shapes.account_secret(found), "secret": secret}, 201)


@router.get(
    f"{PATH}/deliveries",
    operation_id="list_all_deliveries",
    summary="Deliveries to all webhooks and to jobs' own URLs, newest first",
    responses={**answers(200, DeliveryList, "A page.", example=_LIST), **errors(Code.VALIDATION_ERROR)},
)
async def list_all_deliveries(
    request: Request,
    caller: Caller,
    status: OfState = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    _, found = await services_of(request).webhooks.deliveries(
        caller.id, state=status, cursor=cursors.decode(cursors.DELIVERIES, cursor), limit=limit
    )
    return answer(shapes.deliveries(found))


@router.post(
    f"{PATH}/deliveries/{{delivery_id}}/replay",
    status_code=202,
    operation_id="replay_delivery",
    summary="Send it again",
    responses={
        **answers(202, DeliveryAnswer, "It is sent at once, with the same id.", example=_WAITING),
        **errors(Code.NOT_FOUND, Code.CONFLICT),
    },
)
async def replay_delivery(request: Request, caller: Caller, delivery_id: DeliveryPath) -> Response:
    return answer(shapes.delivery(await services_of(request).webhooks.replay(caller.id, delivery_id)), 202)


@router.get(
    f"{PATH}/{{webhook_id}}",
    operation_id="get_webhook",
    summary="A webhook",
    responses={
        **answers(200, WebhookAnswer, "Without its secret.", example=WEBHOOK),
        **errors(Code.NOT_FOUND),
    },
)
async def get_webhook(request: Request, caller: Caller, webhook_id: WebhookPath) -> Response:
    return answer(shapes.webhook(await services_of(request).webhooks.get(caller.id, webhook_id)))


@router.patch(
    f"{PATH}/{{webhook_id}}",
    operation_id="change_webhook",
    summary="Change it, disable it, enable it again",
    responses={
        **answers(200, WebhookAnswer, "As it is now.", example=WEBHOOK),
        **errors(*OF_BODIES, Code.NOT_FOUND),
    },
    openapi_extra=body_of(WebhookChange, {"enabled": True}),
)
async def change_webhook(request: Request, caller: Changing, webhook_id: WebhookPath) -> Response:
    given = parse(WebhookChange, await read_json(request))
    events = None if given.events is None else [WebhookEvent(one) for one in given.events]
    changed = await services_of(request).webhooks.change(
        caller.account.id,
        webhook_id,
        Changes(given.url, events, given.enabled),
        actor_of(request, caller),
    )
    return answer(shapes.webhook(changed))


@router.delete(
    f"{PATH}/{{webhook_id}}",
    status_code=204,
    operation_id="delete_webhook",
    summary="Delete it, with its log",
    responses={**empty(204, "Nothing is delivered to it any more."), **errors(Code.NOT_FOUND)},
)
async def delete_webhook(request: Request, caller: Changing, webhook_id: WebhookPath) -> Response:
    await services_of(request).webhooks.delete(caller.account.id, webhook_id, actor_of(request, caller))
    return Response(status_code=204)


@router.post(
    f"{PATH}/{{webhook_id}}/rotate",
    operation_id="rotate_webhook",
    summary="A new secret",
    responses={
        **answers(
            200,
            NewWebhookAnswer,
            "The secret, shown this once; the one before is good until `old_secret_until`.",
            example={**_NEW, "old_secret_until": EXAMPLE_TIME},
        ),
        **errors(Code.NOT_FOUND),
    },
)
async def rotate_webhook(request: Request, caller: Changing, webhook_id: WebhookPath) -> Response:
    """For a day deliveries carry two signatures: one with the new secret, one with the old."""
    found, secret = await services_of(request).webhooks.rotate(
        caller.account.id, webhook_id, actor_of(request, caller)
    )
    return answer({**shapes.webhook(found), "secret": secret})


@router.post(
    f"{PATH}/{{webhook_id}}/test",
    status_code=202,
    operation_id="test_webhook",
    summary="Send a test",
    responses={
        **answers(
            202,
            DeliveryAnswer,
            "It is sent at once; the log tells what came of it.",
            example={**_WAITING, "type": "webhook.test", "job_id": None, "seq": None},
        ),
        **errors(Code.NOT_FOUND, Code.CONFLICT),
    },
)
async def test_webhook(request: Request, caller: Caller, webhook_id: WebhookPath) -> Response:
    return answer(shapes.delivery(await services_of(request).webhooks.test(caller.id, webhook_id)), 202)


@router.get(
    f"{PATH}/{{webhook_id}}/deliveries",
    operation_id="list_deliveries",
    summary="Its log, newest first",
    responses={
        **answers(200, WebhookDeliveryList, "A page.", example={**_LIST, "notice": None}),
        **errors(Code.NOT_FOUND, Code.VALIDATION_ERROR),
    },
)
async def list_deliveries(
    request: Request,
    caller: Caller,
    webhook_id: WebhookPath,
    status: OfState = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    webhook, found = await services_of(request).webhooks.deliveries(
        caller.id,
        webhook_id=webhook_id,
        state=status,
        cursor=cursors.decode(cursors.DELIVERIES, cursor),
        limit=limit,
    )
    return answer({**shapes.deliveries(found), "notice": shapes.notice_of(webhook)})

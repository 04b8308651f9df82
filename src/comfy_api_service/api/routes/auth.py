"""People: register, log in, stay logged in, and make keys for their programs."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from comfy_api_service.api import people
from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import OF_BODIES, answers, body_of, empty, errors
from comfy_api_service.api.parameters import KeyPath, moment
from comfy_api_service.api.reading import parse, read_json
from comfy_api_service.api.schemas.accounts import (
    EXAMPLE_KEY,
    EXAMPLE_USER,
    KeyList,
    KeyRequest,
    Login,
    NewKeyAnswer,
    Refresh,
    Registration,
    TicketAnswer,
    TokensAnswer,
    UserAnswer,
    example_limits,
)
from comfy_api_service.api.schemas.base import EXAMPLE_TIME
from comfy_api_service.api.state import (
    Caller,
    Known,
    actor_of,
    bucket_at,
    grant,
    require,
    services_of,
)
from comfy_api_service.domain.credentials import Scope
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.times import iso

PATH: Final = "/api/v1/auth"
USER: Final[dict[str, Any]] = {
    "user_id": EXAMPLE_USER,
    "name": "ada",
    "email": "ada@example.com",
    "username": "ada",
    "tier": "basic",
    "role": "user",
    "limits": example_limits(),
    "overrides": {},
    "created_at": EXAMPLE_TIME,
    "disabled_at": None,
}
KEY: Final[dict[str, Any]] = {
    "id": EXAMPLE_KEY,
    "name": "my program",
    "scopes": ["read", "write"],
    "created_at": EXAMPLE_TIME,
    "expires_at": None,
    "last_used_at": None,
    "revoked_at": None,
}
_REGISTRATION: Final = {"email": "ada@example.com", "username": "ada", "password": "correct horse battery"}
_LOGIN: Final = {"username": "ada", "password": "correct horse battery"}
_TOKENS: Final = {
    "access_token": "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.…",
    "token_type": "bearer",
    "expires_in": 900.0,
    "refresh_token": "cui_rt_…",
    "refresh_expires_at": EXAMPLE_TIME,
}
NEW_KEY: Final = {**KEY, "api_key": "cui_sk_…"}
router = APIRouter(tags=["auth"], default_response_class=Response)


@router.post(
    f"{PATH}/register",
    status_code=201,
    operation_id="register",
    summary="A new account",
    responses={
        **answers(201, UserAnswer, "The account; log in next.", example=USER),
        **errors(*OF_BODIES, Code.FORBIDDEN, Code.CONFLICT, Code.RATE_LIMIT_EXCEEDED, open_to_all=True),
    },
    openapi_extra=body_of(Registration, _REGISTRATION),
)
async def register(request: Request) -> Response:
    """Where the operator has opened it (`REGISTRATION_ENABLED`)."""
    services = services_of(request)
    grant(request, await services.throttle.login("", bucket_at(request)))
    given = parse(Registration, await read_json(request))
    made = await services.logins.register(
        email=given.email, username=given.username, password=given.password, actor=actor_of(request)
    )
    return answer(people.user(made, made.account(services.users.tiers).limits), 201)


@router.post(
    f"{PATH}/login",
    operation_id="login",
    summary="Tokens for a password",
    responses={
        **answers(200, TokensAnswer, "A session.", example=_TOKENS),
        **errors(*OF_BODIES, Code.UNAUTHORIZED, Code.RATE_LIMIT_EXCEEDED, open_to_all=True),
    },
    openapi_extra=body_of(Login, _LOGIN),
)
async def login(request: Request) -> Response:
    services = services_of(request)
    given = parse(Login, await read_json(request))
    grant(request, await services.throttle.login(given.username, bucket_at(request)))
    _, made = await services.logins.login(given.username, given.password, actor_of(request))
    return answer(people.tokens(made))


@router.post(
    f"{PATH}/refresh",
    operation_id="refresh",
    summary="New tokens for a refresh token",
    responses={
        **answers(200, TokensAnswer, "The session goes on.", example=_TOKENS),
        **errors(*OF_BODIES, Code.UNAUTHORIZED, Code.RATE_LIMIT_EXCEEDED, open_to_all=True),
    },
    openapi_extra=body_of(Refresh, {"refresh_token": "cui_rt_…"}),
)
async def refresh(request: Request) -> Response:
    """A refresh token can be used once. One that comes again ends the session: somebody has a copy."""
    services = services_of(request)
    grant(request, await services.throttle.stranger(bucket_at(request)))
    given = parse(Refresh, await read_json(request))
    return answer(people.tokens(await services.logins.refresh(given.refresh_token, actor_of(request))))


@router.post(
    f"{PATH}/logout",
    status_code=204,
    operation_id="logout",
    summary="End the session",
    responses={
        **empty(204, "It is over, its tokens are good no more."),
        **errors(Code.CONFLICT),
    },
)
async def logout(request: Request, caller: Known) -> Response:
    await services_of(request).logins.logout(caller.credential, actor_of(request, caller))
    return Response(status_code=204)


@router.post(
    f"{PATH}/ticket",
    status_code=201,
    operation_id="create_ticket",
    summary="A ticket for a WebSocket or an event stream",
    responses={
        **answers(
            201,
            TicketAnswer,
            "Good once, for 30 seconds.",
            example={"ticket": "cui_tk_…", "expires_at": EXAMPLE_TIME},
        ),
        **errors(Code.CONFLICT),
    },
)
async def create_ticket(request: Request, caller: Known) -> Response:
    """Browsers cannot send headers with a WebSocket or an `EventSource`: they append `?ticket=` instead. It stands
    for the credential that it was made with, and ends with that.
    """
    require(caller, Scope.READ)
    services = services_of(request)
    grant(request, await services.throttle.reads(caller.account))
    text, until = await services.access.ticket(caller)
    return answer({"ticket": text, "expires_at": iso(until)}, 201)


@router.get(
    f"{PATH}/me",
    operation_id="get_me",
    summary="The caller's account",
    responses={
        **answers(200, UserAnswer, "The account.", example=USER),
        **errors(),
    },
)
async def get_me(request: Request, caller: Caller) -> Response:
    found = await services_of(request).users.get(caller.id)
    return answer(people.user(found, caller.limits))


@router.get(
    f"{PATH}/keys",
    operation_id="list_keys",
    summary="Own API keys, newest first",
    responses={
        **answers(200, KeyList, "All of them.", example={"keys": [KEY], "next_cursor": None}),
        **errors(),
    },
)
async def list_keys(request: Request, caller: Caller) -> Response:
    found = await services_of(request).keys.of_account(caller.id)
    return answer({"keys": [people.key(one) for one in found], "next_cursor": None})


@router.post(
    f"{PATH}/keys",
    status_code=201,
    operation_id="create_key",
    summary="A new API key",
    responses={
        **answers(201, NewKeyAnswer, "The key; its text is shown this once.", example=NEW_KEY),
        **errors(
            *OF_BODIES,
            Code.UNAUTHORIZED,
            Code.FORBIDDEN,
            Code.CONFLICT,
            Code.NOT_FOUND,
            Code.RATE_LIMIT_EXCEEDED,
        ),
    },
    openapi_extra=body_of(KeyRequest, {"name": "my program", "scopes": ["read", "write"]}),
)
async def create_key(request: Request, caller: Known) -> Response:
    """It can have no scope that the credential it is made with does not have."""
    require(caller, Scope.WRITE)
    services = services_of(request)
    grant(request, await services.throttle.reads(caller.account))
    given = parse(KeyRequest, await read_json(request))
    made, text = await services.keys.create(
        caller.account.id,
        actor_of(request, caller),
        name=given.name,
        scopes=given.scopes,
        expires_at=moment("expires_at", given.expires_at),
        granting=caller.scopes,
        until=caller.key_ends_at,
    )
    return answer({**people.key(made), "api_key": text}, 201)


@router.delete(
    f"{PATH}/keys/{{key_id}}",
    status_code=204,
    operation_id="revoke_key",
    summary="Revoke an API key",
    responses={
        **empty(204, "Within seconds it is good nowhere; its open streams end."),
        **errors(Code.NOT_FOUND),
    },
)
async def revoke_key(request: Request, caller: Known, key_id: KeyPath) -> Response:
    require(caller, Scope.WRITE)
    services = services_of(request)
    grant(request, await services.throttle.reads(caller.account))
    await services.keys.revoke(caller.account.id, key_id, actor_of(request, caller))
    return Response(status_code=204)

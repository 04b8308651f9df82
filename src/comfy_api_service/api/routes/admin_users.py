"""People and their keys, by operators. All of this also answers below `/api/v1`."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from comfy_api_service.api import cursors, people
from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import OF_BODIES, answers, body_of, empty, errors
from comfy_api_service.api.parameters import PAGE_DEFAULT, Cursor, KeyPath, Limit, UserPath, UserQuery, moment
from comfy_api_service.api.reading import parse, read_json
from comfy_api_service.api.routes.auth import KEY, USER
from comfy_api_service.api.schemas.accounts import EXAMPLE_USER, NO_NUL, UserAnswer
from comfy_api_service.api.schemas.admin import (
    NewUserKeyAnswer,
    UserChange,
    UserKeyList,
    UserKeyRequest,
    UserList,
    UserRequest,
)
from comfy_api_service.api.state import Administrator, actor_of, services_of
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.keys import Key
from comfy_api_service.domain.users import User
from comfy_api_service.services.users import Changes

USERS: Final = "/admin/users"
KEYS: Final = "/admin/api-keys"
_USER: Final = {"email": "ada@example.com", "username": "ada", "tier": "basic"}
_CHANGE: Final = {"tier": "pro", "overrides": {"images_per_day": 5000, "retention": None}}
_KEY: Final = {**KEY, "user_id": EXAMPLE_USER}
_NEW_KEY: Final = {**_KEY, "api_key": "cui_sk_…"}
_KEY_REQUEST: Final = {"user_id": EXAMPLE_USER, "name": "their program", "scopes": ["read", "write"]}
Search = Annotated[
    str | None,
    Query(
        max_length=100, pattern=NO_NUL, description="A part of the name, the e-mail address or the username."
    ),
]
router = APIRouter(tags=["admin"], default_response_class=Response)


def _user(request: Request, found: User) -> dict[str, Any]:
    return people.user(found, found.account(services_of(request).users.tiers).limits)


def _key(found: Key) -> dict[str, Any]:
    return {**people.key(found), "user_id": found.account_id}


@router.get(
    USERS,
    operation_id="admin_list_users",
    summary="Accounts, oldest first",
    responses={
        **answers(200, UserList, "A page.", example={"users": [USER], "next_cursor": None}),
        **errors(Code.VALIDATION_ERROR),
    },
)
async def list_users(
    request: Request,
    _caller: Administrator,
    search: Search = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    page = await services_of(request).users.page(
        after=cursors.decode(cursors.USERS, cursor), limit=limit, search=search
    )
    return answer(
        {
            "users": [_user(request, one) for one in page.items],
            "next_cursor": cursors.encode(cursors.USERS, page.next_cursor),
        }
    )


@router.post(
    USERS,
    status_code=201,
    operation_id="admin_create_user",
    summary="A new account",
    responses={
        **answers(201, UserAnswer, "The account.", example=USER),
        **errors(*OF_BODIES, Code.CONFLICT),
    },
    openapi_extra=body_of(UserRequest, _USER),
)
async def create_user(request: Request, caller: Administrator) -> Response:
    """Make it a key with `POST /admin/api-keys`; with a password its owner can log in, and make keys."""
    given = parse(UserRequest, await read_json(request))
    made = await services_of(request).users.create(
        actor_of(request, caller),
        email=given.email,
        username=given.username,
        password=given.password,
        tier=given.tier,
        role=given.role,
        overrides={name: value for name, value in given.overrides.items() if value is not None},
    )
    return answer(_user(request, made), 201)


@router.get(
    f"{USERS}/{{user_id}}",
    operation_id="admin_get_user",
    summary="An account",
    responses={
        **answers(200, UserAnswer, "The account.", example=USER),
        **errors(Code.NOT_FOUND),
    },
)
async def get_user(request: Request, _caller: Administrator, user_id: UserPath) -> Response:
    return answer(_user(request, await services_of(request).users.get(user_id)))


@router.patch(
    f"{USERS}/{{user_id}}",
    operation_id="admin_change_user",
    summary="Change an account",
    responses={
        **answers(200, UserAnswer, "The account now.", example=USER),
        **errors(*OF_BODIES, Code.NOT_FOUND, Code.CONFLICT),
    },
    openapi_extra=body_of(UserChange, _CHANGE),
)
async def change_user(request: Request, caller: Administrator, user_id: UserPath) -> Response:
    """In force within two seconds everywhere; how many jobs run at once, from the next that starts. The last
    administrator can be neither disabled nor made a user.
    """
    given = parse(UserChange, await read_json(request))
    changes = Changes(
        name=given.name,
        tier=given.tier,
        role=given.role,
        disabled=given.disabled,
        password=given.password,
        overrides=given.overrides,
    )
    found = await services_of(request).users.change(user_id, changes, actor_of(request, caller))
    return answer(_user(request, found))


@router.delete(
    f"{USERS}/{{user_id}}",
    status_code=204,
    operation_id="admin_delete_user",
    summary="Disable an account, log it out, revoke its keys",
    responses={
        **empty(204, "It is disabled, now or since before."),
        **errors(Code.NOT_FOUND, Code.CONFLICT),
    },
)
async def delete_user(request: Request, caller: Administrator, user_id: UserPath) -> Response:
    """Its jobs and its use stay, for billing, and so do its name and address. Enabled again by `PATCH`, it needs new
    keys.
    """
    await services_of(request).users.remove(user_id, actor_of(request, caller))
    return Response(status_code=204)


@router.get(
    KEYS,
    operation_id="admin_list_keys",
    summary="API keys of all accounts, or of one",
    responses={
        **answers(200, UserKeyList, "A page.", example={"keys": [_KEY], "next_cursor": None}),
        **errors(Code.VALIDATION_ERROR),
    },
)
async def list_keys(
    request: Request,
    _caller: Administrator,
    user_id: UserQuery = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    page = await services_of(request).keys.every(
        after=cursors.decode(cursors.KEYS, cursor), limit=limit, account_id=user_id
    )
    next_cursor = cursors.encode(cursors.KEYS, page.next_cursor)
    return answer({"keys": [_key(one) for one in page.items], "next_cursor": next_cursor})


@router.post(
    KEYS,
    status_code=201,
    operation_id="admin_create_key",
    summary="A new API key for an account",
    responses={
        **answers(201, NewUserKeyAnswer, "The key; its text is shown this once.", example=_NEW_KEY),
        **errors(*OF_BODIES, Code.NOT_FOUND, Code.CONFLICT),
    },
    openapi_extra=body_of(UserKeyRequest, _KEY_REQUEST),
)
async def create_key(request: Request, caller: Administrator) -> Response:
    """The scope `admin` is for administrators' accounts alone."""
    given = parse(UserKeyRequest, await read_json(request))
    made, text = await services_of(request).keys.create(
        given.user_id,
        actor_of(request, caller),
        name=given.name,
        scopes=given.scopes,
        expires_at=moment("expires_at", given.expires_at),
        granting=caller.scopes,
    )
    return answer({**_key(made), "api_key": text}, 201)


@router.delete(
    f"{KEYS}/{{key_id}}",
    status_code=204,
    operation_id="admin_revoke_key",
    summary="Revoke anybody's API key",
    responses={
        **empty(204, "Within seconds it is good nowhere; its open streams end."),
        **errors(Code.NOT_FOUND),
    },
)
async def revoke_key(request: Request, caller: Administrator, key_id: KeyPath) -> Response:
    await services_of(request).keys.revoke_any(key_id, actor_of(request, caller))
    return Response(status_code=204)

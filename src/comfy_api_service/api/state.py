"""What a request's handler finds beside the request: services, options, the caller."""

from dataclasses import dataclass
from typing import Annotated, Final, cast

from fastapi import Depends, Query, Request
from starlette.requests import HTTPConnection
from starlette.types import Scope

from comfy_api_service.api.client_address import bucket_of
from comfy_api_service.api.draining import Draining
from comfy_api_service.api.host_names import HOST
from comfy_api_service.api.limit_headers import limit_headers
from comfy_api_service.api.options import ApiOptions
from comfy_api_service.api.services import ApiServices
from comfy_api_service.domain.account import Account, Role
from comfy_api_service.domain.credentials import Scope as Allowed
from comfy_api_service.domain.errors import Code, Refused
from comfy_api_service.domain.principal import NOBODY, Actor, Principal
from comfy_api_service.services.access import unauthorized
from comfy_api_service.services.throttle import Taken, rate_limited

_BEARER: Final = b"bearer "


@dataclass(frozen=True, slots=True)
class AppState:
    services: ApiServices
    options: ApiOptions
    draining: Draining


def state_of(connection: HTTPConnection) -> AppState:
    return cast(AppState, connection.scope["comfy_state"])


def services_of(connection: HTTPConnection) -> ApiServices:
    return state_of(connection).services


def base_of(connection: HTTPConnection) -> str:
    """What stands before every path: `http://host:port`, or nothing if the request named no sane host."""
    public = state_of(connection).options.public_url
    if public is not None:
        return public
    scope = connection.scope
    for name, value in scope["headers"]:
        if name == b"host":
            host = value.decode("latin-1")
            return (
                f"{scope['comfy_scheme']}://{host}{scope.get('root_path', '')}"
                if HOST.fullmatch(host)
                else ""
            )
    return ""


# --- who calls -------------------------------------------------------------------------------------------


async def principal(connection: HTTPConnection, *, ticket: str | None = None) -> Principal:
    """By `X-API-Key` or `Authorization: Bearer`, or by a one-use ticket where there are no headers to send.

    Raises `Refused` (UNAUTHORIZED), one answer whatever is wrong, and RATE_LIMIT_EXCEEDED for an address that has
    tried too often.
    """
    access = services_of(connection).access
    if not access.enabled:
        return NOBODY
    try:
        sent = _sent(connection.scope)
        if sent is not None:
            found = await access.of_sent(sent)
        elif ticket is not None:
            found = await access.of_ticket(ticket)
        else:
            raise unauthorized()
    except Refused:
        services_of(connection).metrics.credentials_refused.inc()
        grant(connection, await services_of(connection).throttle.stranger(bucket_at(connection)))
        raise
    connection.scope["comfy_account_id"] = found.account.id
    return found


def _sent(scope: Scope) -> str | None:
    """The credential in the headers, as it was sent; an API key's header goes before the other."""
    bearer = None
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            return bytes(value).decode("latin-1")
        if name == b"authorization" and value[:7].lower() == _BEARER:
            bearer = bytes(value[7:]).decode("latin-1")
    return bearer


def require(found: Principal, allowed: Allowed) -> None:
    """Raises `Refused` (FORBIDDEN) for a credential without this scope."""
    if allowed not in found.scopes:
        raise Refused(Code.FORBIDDEN, f"The credential does not have the scope `{allowed}`.")


async def known(request: Request) -> Principal:
    """Whoever has a good credential, whatever its scopes."""
    return await principal(request)


async def caller(request: Request) -> Account:
    """Who calls, to read or, with any method but GET, to change something of its own."""
    found = await principal(request)
    require(found, Allowed.READ if request.method == "GET" else Allowed.WRITE)
    grant(request, await services_of(request).throttle.reads(found.account))
    return found.account


async def changer(request: Request) -> Principal:
    """Who changes something of its own, and is written down for it."""
    found = await principal(request)
    require(found, Allowed.WRITE)
    grant(request, await services_of(request).throttle.reads(found.account))
    return found


async def listener(
    request: Request,
    ticket: Annotated[
        str | None,
        Query(max_length=200, description="From `POST /api/v1/auth/ticket`, for browsers; good once."),
    ] = None,
) -> Principal:
    """Who listens, perhaps from a browser's `EventSource`."""
    found = await principal(request, ticket=ticket)
    require(found, Allowed.READ)
    grant(request, await services_of(request).throttle.reads(found.account))
    return found


async def submitter(request: Request) -> Account:
    """Who submits; counted as a submission, whatever comes of it."""
    found = await principal(request)
    require(found, Allowed.WRITE)
    grant(request, await services_of(request).throttle.submissions(found.account))
    return found.account


async def uploader(request: Request) -> Account:
    """Who uploads a file; counted, whatever comes of it."""
    found = await principal(request)
    require(found, Allowed.WRITE)
    grant(request, await services_of(request).throttle.uploads(found.account))
    return found.account


async def administrator(request: Request) -> Principal:
    found = await principal(request)
    if found.account.role is not Role.ADMIN:
        raise Refused(Code.FORBIDDEN, "Only administrators may do this.")
    require(found, Allowed.ADMIN)
    return found


Known = Annotated[Principal, Depends(known)]
Caller = Annotated[Account, Depends(caller)]
Changing = Annotated[Principal, Depends(changer)]
Listening = Annotated[Principal, Depends(listener)]
Submitting = Annotated[Account, Depends(submitter)]
Uploading = Annotated[Account, Depends(uploader)]
Administrator = Annotated[Principal, Depends(administrator)]


# --- how often -------------------------------------------------------------------------------------------


def grant(connection: HTTPConnection, taken: Taken | None) -> None:
    """Note for the answer what the buckets hold. Raises RATE_LIMIT_EXCEEDED if they gave nothing."""
    if taken is None:
        return
    note_limits(connection, taken)
    if not taken.granted:
        kinds = zip(taken.charges, taken.decision.levels, strict=True)
        empty = next(charge.bucket.kind for charge, level in kinds if level.retry_after > 0)
        services_of(connection).metrics.limited.labels(empty).inc()
        raise rate_limited(taken)


def note_limits(connection: HTTPConnection, taken: Taken) -> None:
    """For the headers of the answer."""
    now = services_of(connection).clock.now()
    connection.scope["comfy_limits"] = limit_headers(taken.charges, taken.decision, now=now)


# --- from where ------------------------------------------------------------------------------------------


def address_of(connection: HTTPConnection) -> str:
    """The caller's, told by a trusted proxy perhaps."""
    return cast(str, connection.scope["comfy_client"])


def bucket_at(connection: HTTPConnection) -> str:
    """What limits by address count under."""
    return bucket_of(address_of(connection))


def actor_of(connection: HTTPConnection, found: Principal | None = None) -> Actor:
    """Whose act it is, for the audit log."""
    return Actor(
        None if found is None else found.account.id,
        address_of(connection),
        connection.scope.get("comfy_request_id"),
    )

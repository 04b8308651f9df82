"""What a request's handler finds beside the request: services, options, the caller."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from comfy_api_service.api.draining import Draining
from comfy_api_service.api.options import ApiOptions
from comfy_api_service.api.services import ApiServices
from comfy_api_service.domain.account import LOCAL, Account


@dataclass(frozen=True, slots=True)
class AppState:
    services: ApiServices
    options: ApiOptions
    draining: Draining


def state_of(connection: HTTPConnection) -> AppState:
    return cast(AppState, connection.scope["comfy_state"])


def services_of(connection: HTTPConnection) -> ApiServices:
    return state_of(connection).services


async def caller() -> Account:
    """Who calls. The one place where authentication will stand; until then everybody is the local account."""
    return LOCAL


Caller = Annotated[Account, Depends(caller)]

"""What the caller used, and what is left."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from pydantic import BeforeValidator, Field
from starlette.responses import Response

from comfy_api_service.api import people
from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import answers, errors
from comfy_api_service.api.reading import whole_number
from comfy_api_service.api.schemas.accounts import UsageAnswer, example_limits
from comfy_api_service.api.schemas.base import EXAMPLE_TIME
from comfy_api_service.api.state import Caller, services_of
from comfy_api_service.domain.errors import Code

_EXAMPLE: Final = {
    "tier": "basic",
    "limits": example_limits(),
    "left": {"images_today": 88, "waiting": 49},
    "running": 1,
    "waiting": 1,
    "reset_at": EXAMPLE_TIME,
    "days": [{"day": "2026-01-31", "images": 10, "reserved": 2, "gpu_seconds": 41.5}],
    "notices": [],
}
Days = Annotated[
    int, Field(ge=1, le=366), BeforeValidator(whole_number), Query(description="How many days back.")
]
router = APIRouter(tags=["usage"], default_response_class=Response)


@router.get(
    "/api/v1/usage",
    operation_id="get_usage",
    summary="Own use, by UTC day, and what is left",
    responses={
        **answers(200, UsageAnswer, "Newest day first; days without use are left out.", example=_EXAMPLE),
        **errors(Code.VALIDATION_ERROR),
    },
)
async def get_usage(request: Request, caller: Caller, days: Days = 30) -> Response:
    found = await services_of(request).usages.of(caller, days=days)
    return answer(people.usage(found, caller.tier, caller.limits))

"""People's accounts, their keys and sessions, and what they used."""

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from comfy_api_service.api.schemas.base import EXAMPLE_TIME, Answer, Document, Request, Time
from comfy_api_service.api.schemas.webhooks import NoticeAnswer
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.credentials import Scope
from comfy_api_service.domain.users import EMAIL_MOST, email_of, username_of

EXAMPLE_USER: Final = "acc_0123456789ABCDEFGHJKMNPQRS"
EXAMPLE_KEY: Final = "4fK9s2LmQx7B"
NO_NUL: Final = r"^[^\x00]*$"
Email = Annotated[
    str, Field(min_length=3, max_length=EMAIL_MOST, examples=["ada@example.com"]), AfterValidator(email_of)
]
Username = Annotated[str, Field(min_length=2, max_length=32, examples=["ada"]), AfterValidator(username_of)]
Password = Annotated[str, Field(min_length=8, max_length=256, json_schema_extra={"format": "password"})]
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=NO_NUL)]
UserId = Annotated[str, Field(pattern="^acc_(local|[0-9A-HJKMNP-TV-Z]{26})$", examples=[EXAMPLE_USER])]
KeyId = Annotated[str, Field(pattern="^[0-9A-Za-z]{12}$", examples=[EXAMPLE_KEY])]
Moment = Annotated[
    str, Field(max_length=40, json_schema_extra={"format": "date-time"}, examples=[EXAMPLE_TIME])
]


class Registration(Request):
    email: Email
    username: Username
    password: Password


class Login(Request):
    """`username` may be the e-mail address."""

    username: Annotated[str, Field(min_length=1, max_length=EMAIL_MOST, pattern=NO_NUL)]
    password: Annotated[str, Field(min_length=1, max_length=256)]


class Refresh(Request):
    refresh_token: Annotated[str, Field(min_length=1, max_length=200)]


class KeyRequest(Request):
    """`scopes`: read and write, if nothing else is asked for."""

    name: Name
    scopes: Annotated[list[Annotated[Scope, Field(strict=False)]], Field(min_length=1, max_length=3)] = Field(
        default_factory=lambda: [Scope.READ, Scope.WRITE]
    )
    expires_at: Moment | None = None


class LimitsAnswer(Answer):
    """null is no limit; `link_ttl` and `retention` are seconds."""

    images_per_day: int | None
    running: int | None
    waiting: int | None
    submissions_per_minute: int | None
    link_ttl: float
    retention: float
    weight: float
    pixel_steps: float | None = Field(description="The work of one job.")
    output_files: int | None = Field(description="Of one job.")
    output_bytes: int | None = Field(description="Of all files of one job.")
    nodes: list[str] = Field(description="Classes that may be used beside those of the node policy.")


class UserAnswer(Answer):
    user_id: UserId
    name: str
    email: str | None
    username: str | None
    tier: str
    role: Role
    limits: LimitsAnswer
    overrides: Document
    created_at: Time
    disabled_at: Time | None


class TokensAnswer(Answer):
    """`access_token` for `expires_in` seconds; `refresh_token` once."""

    access_token: str
    token_type: Literal["bearer"]
    expires_in: float
    refresh_token: str
    refresh_expires_at: Time


class TicketAnswer(Answer):
    """For `?ticket=` of a WebSocket or an event stream, once."""

    ticket: str
    expires_at: Time


class KeyAnswer(Answer):
    id: KeyId
    name: str
    scopes: list[Scope]
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    revoked_at: Time | None


class NewKeyAnswer(KeyAnswer):
    """`api_key` is shown this once."""

    api_key: str


class KeyList(Answer):
    keys: list[KeyAnswer]
    next_cursor: str | None


class DayAnswer(Answer):
    """A UTC day: `images` were produced, `reserved` are of jobs that have not ended."""

    day: str
    images: int
    reserved: int
    gpu_seconds: float


class LeftAnswer(Answer):
    """What is left of the limits now; null is no limit."""

    images_today: int | None
    waiting: int | None


class UsageAnswer(Answer):
    tier: str
    limits: LimitsAnswer
    left: LeftAnswer
    running: int
    waiting: int
    reset_at: Time
    days: list[DayAnswer]
    notices: list[NoticeAnswer] = Field(description="What asks for the owner's attention.")


def example_limits() -> dict[str, Any]:
    return {
        "images_per_day": 100,
        "running": 2,
        "waiting": 50,
        "submissions_per_minute": 10,
        "link_ttl": 21600.0,
        "retention": 1209600.0,
        "weight": 2.0,
        "pixel_steps": 1e9,
        "output_files": 64,
        "output_bytes": 512_000_000,
        "nodes": [],
    }

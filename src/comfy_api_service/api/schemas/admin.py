"""What operators send and see: people and keys of all, the pool, figures, the audit log."""

from typing import Annotated, Final

from pydantic import AfterValidator, Field, HttpUrl, TypeAdapter

from comfy_api_service.api.schemas.accounts import (
    Email,
    KeyAnswer,
    KeyRequest,
    LimitsAnswer,
    Name,
    Password,
    UserAnswer,
    UserId,
    Username,
)
from comfy_api_service.api.schemas.base import Answer, Document, Request, Time
from comfy_api_service.api.schemas.jobs import JobAnswer
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.backend import BackendState

_URL: Final = TypeAdapter(HttpUrl)


def comfyui_url(text: str) -> str:
    """By the rules of the setting COMFYUI_URL. Raises `ValueError`."""
    parsed = _URL.validate_python(text)
    if parsed.query or parsed.fragment:
        raise ValueError("a ComfyUI address has no query and no fragment")
    return text.rstrip("/")


def _comfyui_url(text: str) -> str:
    try:
        return comfyui_url(text)
    except ValueError:
        raise ValueError("must be the address of a ComfyUI server, as http://gpu3:8188") from None


Tier = Annotated[str, Field(min_length=1, max_length=32, examples=["basic"])]
RoleField = Annotated[Role, Field(strict=False)]
Overrides = Annotated[
    dict[str, int | float | str | None],
    Field(
        max_length=20,
        description="Limits in place of the tier's, by name; `\"none\"`: no limit, null: the tier's own again.",
        examples=[{"images_per_day": 500, "retention": "60d"}],
    ),
]


class UserRequest(Request):
    """Without a password nobody can log in to it, but it can have keys."""

    email: Email
    username: Username
    password: Password | None = None
    tier: Tier = "free"
    role: RoleField = Role.USER
    overrides: Overrides = Field(default_factory=dict)


class UserChange(Request):
    """What is absent or null stays as it is. Another password, or `disabled`, logs the account out."""

    name: Name | None = None
    tier: Tier | None = None
    role: RoleField | None = None
    disabled: bool | None = None
    password: Password | None = None
    overrides: Overrides | None = None


class UserList(Answer):
    users: list[UserAnswer]
    next_cursor: str | None


class UserKeyRequest(KeyRequest):
    """A key for an account."""

    user_id: UserId


class UserKeyAnswer(KeyAnswer):
    """A key with its account."""

    user_id: UserId


class NewUserKeyAnswer(UserKeyAnswer):
    """`api_key` is shown this once."""

    api_key: str


class UserKeyList(Answer):
    keys: list[UserKeyAnswer]
    next_cursor: str | None


class BackendRequest(Request):
    url: Annotated[
        str,
        Field(min_length=1, max_length=2000, examples=["http://gpu3:8188"]),
        AfterValidator(_comfyui_url),
    ]


class BackendChange(Request):
    """`draining`: it gets no more work, what it has ends there."""

    draining: bool


class BackendAnswer(Answer):
    """A ComfyUI server. `driven`: a living worker has it; one that nobody drives is offline."""

    name: str
    url: str = Field(description="Without its password.")
    state: BackendState
    draining: bool
    driven: bool
    version: str | None
    resident_model: str | None
    seen_at: Time | None
    manual: bool = Field(description="Added by an operator, not by a worker's settings.")


class BackendList(Answer):
    backends: list[BackendAnswer]


class TierAnswer(Answer):
    name: str
    limits: LimitsAnswer


class TierList(Answer):
    tiers: list[TierAnswer]


class UserStats(Answer):
    """`by_tier`: accounts that may call; disabled ones are counted apart."""

    by_tier: dict[str, int]
    administrators: int
    disabled: int


class JobStats(Answer):
    """Jobs that have not ended; `running`: backends have them."""

    queued: int
    running: int
    queued_by_tier: dict[str, int]
    oldest_queued_at: Time | None
    oldest_wait: float | None = Field(description="Seconds that the oldest of those that wait has waited.")


class ProducedStats(Answer):
    """What was produced and charged."""

    images: int
    gpu_seconds: float


class UsageStats(Answer):
    """By UTC days of submission."""

    today: ProducedStats
    last_30_days: ProducedStats


class StatsAnswer(Answer):
    users: UserStats
    keys: int = Field(description="That can be used.")
    jobs: JobStats
    backends: dict[BackendState, int] = Field(description="How many are in each state.")
    usage: UsageStats


class AccountJobAnswer(JobAnswer):
    """A job with its account. Its place in the queue is not told here, and its preview is its owner's."""

    user_id: UserId


class AccountJobList(Answer):
    jobs: list[AccountJobAnswer]
    next_cursor: str | None


class EntryAnswer(Answer):
    """Who did what, to what, from where. `actor`: null for the shell, and for who was not known."""

    id: int
    at: Time
    action: str
    actor: str | None
    target: str | None
    address: str | None
    request_id: str | None
    data: Document


class EntryList(Answer):
    entries: list[EntryAnswer]
    next_cursor: str | None

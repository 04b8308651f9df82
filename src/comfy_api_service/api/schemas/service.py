"""What the service says of itself."""

from typing import Literal

from comfy_api_service.api.schemas.base import Answer, Time
from comfy_api_service.services.health import PartStatus


class RootAnswer(Answer):
    name: str
    version: str
    links: dict[str, str]


class PingAnswer(Answer):
    ok: Literal[True]


class HealthAnswer(Answer):
    status: Literal["healthy", "degraded"]
    api_version: str
    comfyui_status: PartStatus
    redis_status: PartStatus
    database_status: PartStatus
    storage_status: PartStatus
    minio_status: PartStatus
    timestamp: Time


class LiveAnswer(Answer):
    alive: Literal[True]


class ReadyAnswer(Answer):
    ready: Literal[True]

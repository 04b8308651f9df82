"""The models of the pool."""

from comfy_api_service.api.schemas.base import Answer


class ModelAnswer(Answer):
    kind: str
    name: str
    backends: list[str]


class ModelList(Answer):
    models: list[ModelAnswer]
    next_cursor: str | None

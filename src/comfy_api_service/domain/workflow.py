"""Stored workflows: templates with a name, an owner and versions."""

from dataclasses import dataclass
from typing import Final

from comfy_api_service.domain.templates.template import Template

NAME_MAX: Final = 200
DESCRIPTION_MAX: Final = 5000


@dataclass(frozen=True, slots=True)
class Workflow:
    """`account_id` None: it comes with the service. Times are seconds since the epoch."""

    id: str
    account_id: str | None
    name: str
    description: str
    version: int
    """The latest."""
    published_at: float | None
    """Since when everybody may use it."""
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class Version:
    """What never changes any more."""

    number: int
    template: Template
    created_at: float

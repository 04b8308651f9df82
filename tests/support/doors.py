"""Accounts with keys of a service that runs, made beside it, as the shell's `admin` commands make them."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.postgres import blocking

from comfy_api_service.bootstrap import parts
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.credentials import Scope
from comfy_api_service.domain.principal import SHELL
from comfy_api_service.settings import Settings


def new_keys(environment: Mapping[str, str], tiers: Sequence[str]) -> list[str]:
    """A key of a new account of each of these tiers; `environment` names the database."""
    where: dict[str, Any] = {
        name.lower(): environment[name] for name in ("DATABASE_URL", "DATA_DIR") if name in environment
    }

    async def make() -> list[str]:
        async with parts.people(Settings(**where)) as people:
            made = []
            for number, tier in enumerate(tiers):
                user = await people.users.create(
                    SHELL,
                    email=f"caller{number}@example.com",
                    username=f"caller{number}",
                    password=None,
                    tier=tier,
                    role=Role.USER,
                )
                scopes = (Scope.READ, Scope.WRITE)
                _, text = await people.keys.create(user.id, SHELL, name="load", scopes=scopes)
                made.append(text)
            return made

    return blocking(make)

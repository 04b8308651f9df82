"""Accounts with keys and sessions, for tests of whoever calls."""

import itertools
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from tests.support.api import Client, connected
from tests.support.postgres import blocking

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.db import accounts, api_keys
from comfy_api_service.db.base import Tx
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.credentials import Scope, digest, make_api_key
from comfy_api_service.domain.ids import new_account_id
from comfy_api_service.domain.keys import Key
from comfy_api_service.domain.principal import SHELL
from comfy_api_service.domain.tiers import TIERS
from comfy_api_service.domain.users import User

PASSWORD: Final = "correct horse battery"
AUTH: Final[Mapping[str, Any]] = {"auth_enabled": True}
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Person:
    """An account, and the text and id of a key of it."""

    user: User
    key: str
    key_id: str

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.key}


async def person(
    service: Service,
    *,
    tier: str = "enterprise",
    role: Role = Role.USER,
    scopes: Collection[Scope] = (Scope.READ, Scope.WRITE),
    password: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Person:
    name = f"person{next(_numbers)}"
    user = await service.services.users.create(
        SHELL,
        email=f"{name}@example.com",
        username=name,
        password=password,
        tier=tier,
        role=role,
        overrides=overrides,
    )
    key, text = await service.services.keys.create(user.id, SHELL, name="tests", scopes=scopes)
    return Person(user, text, key.id)


@asynccontextmanager
async def calling(service: Service, who: Person | None = None) -> AsyncIterator[Client]:
    async with connected(service.app) as client:
        if who is not None:
            client.headers.update(who.headers)
        yield client


def enter(
    url: str, *, tier: str = "free", role: Role = Role.USER, overrides: Mapping[str, Any] | None = None
) -> tuple[str, str]:
    """Write an account straight into a database; its id, and the text of a key of it."""
    made = make_api_key()
    name = f"person{next(_numbers)}"
    user = User(new_account_id(), name, f"{name}@example.com", name, tier, role, time.time())
    user = replace(user, overrides=dict(overrides or {}))

    async def write(tx: Tx) -> None:
        await accounts.create(tx, user, user.account(TIERS).limits, None)
        scopes = frozenset(Scope) if role is Role.ADMIN else frozenset((Scope.READ, Scope.WRITE))
        await api_keys.insert(
            tx, Key(made.public_id, user.id, "tests", scopes, time.time()), digest(made.text)
        )

    async def entered() -> None:
        db = await PostgresDatabase.open(url, application="tests", connections=2)
        try:
            await db.write(write)
        finally:
            await db.close()

    blocking(entered)
    return user.id, made.text

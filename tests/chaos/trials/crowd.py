"""Forty accounts: their rows and keys, and callers that call with them."""

import itertools
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Final

import httpx2
from tests.chaos.load import PACE, PATIENCE, Callers, _Spread
from tests.support.postgres import blocking

from comfy_api_service.db import accounts, api_keys
from comfy_api_service.db.base import Tx
from comfy_api_service.db.postgres import PostgresDatabase
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.credentials import ApiKey, Scope, digest, make_api_key
from comfy_api_service.domain.keys import Key
from comfy_api_service.domain.tiers import Limits

ACCOUNTS: Final = {
    account.id: account
    for account in (
        Account(f"acc_{n:02}", f"acc_{n:02}", "free", limits=Limits(weight=2.0 ** (n % 4))) for n in range(40)
    )
}
KEYS: Final[dict[str, ApiKey]] = {account_id: make_api_key() for account_id in ACCOUNTS}
OPEN: Final = 3
"""Jobs of an account that are open at a time: the end is to be reached in time."""


def enter(url: str) -> None:
    """Write the accounts into the database at this address."""

    async def write() -> None:
        db = await PostgresDatabase.open(url, application="tests", connections=2)
        try:
            await db.write(_ensured)
        finally:
            await db.close()

    blocking(write)


async def _ensured(tx: Tx) -> None:
    now = time.time()
    for account in ACCOUNTS.values():
        await accounts.ensure(tx, account, now)
        key = KEYS[account.id]
        scopes = frozenset((Scope.READ, Scope.WRITE))
        await api_keys.insert(tx, Key(key.public_id, account.id, "crowd", scopes, now), digest(key.text))


class _For(_Spread):
    """Speaks for one account."""

    def __init__(self, name: str, doors: Sequence[httpx2.Client], rng: random.Random) -> None:
        super().__init__(doors, rng)
        self._name = name

    def request(self, method: str, path: str, **content: Any) -> httpx2.Response:
        headers = {**content.pop("headers", {}), "X-API-Key": KEYS[self._name].text}
        return super().request(method, path, headers=headers, **content)


class Crowd(Callers):
    """The threads of `Callers`, each of which calls for its share of the accounts, one after the other."""

    def accounts(self) -> set[str]:
        """Those of whom a job was acknowledged."""
        return {key.rpartition("/")[0] for key in tuple(self.told.jobs)}

    def _work(self, number: int, rng: random.Random) -> None:
        open_jobs: dict[str, list[str]] = {name: [] for name in list(ACCOUNTS)[number :: len(self._threads)]}
        count = itertools.count()
        with ExitStack() as stack:
            doors = [
                stack.enter_context(httpx2.Client(base_url=url, timeout=PATIENCE, trust_env=False))
                for url in self._urls
            ]
            for name in itertools.cycle(open_jobs):
                if self._stop.is_set():
                    return
                client, mine = _For(name, doors, rng), open_jobs[name]
                if len(mine) < OPEN:
                    job_id = self._submit(client, f"{name}/{next(count)}", rng)
                    if job_id is not None:
                        mine.append(job_id)
                        if rng.random() < 0.1:  # one that may be running
                            self._cancel(client, rng.choice(mine))
                if mine:
                    self._look(client, rng.choice(mine), mine)
                self._stop.wait(PACE * rng.uniform(0.2, 1.2))

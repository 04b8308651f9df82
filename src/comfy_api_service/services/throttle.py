"""How often somebody may call: token buckets by account, and without one by address."""

from functools import lru_cache
from typing import Final, NamedTuple

from comfy_api_service.domain.account import Account
from comfy_api_service.domain.errors import Code, ServiceError
from comfy_api_service.limits.base import Bucket, Buckets, Charge, Decision

MINUTE: Final = 60.0
READS: Final = 20
"""Reads for each submission that an account may make a minute."""
UPLOADS: Final = 4
"""Uploads for each submission that an account may make a minute: a picture, a mask, and some for ControlNet."""
LOGINS: Final = 10
LOGINS_OF_ADDRESS: Final = 30
LOGIN_SECONDS: Final = 900.0
"""In so many seconds: this many attempts for one name from one address, and for all names from one address."""
STRANGERS: Final = 60
"""Attempts without a good credential a minute, from one address."""


@lru_cache(maxsize=8192)
def _of_account(kind: str, tokens: int, account_id: str) -> Charge:
    """Made once: it is asked for with each request."""
    return Charge(Bucket.per(MINUTE, tokens, kind=kind, whom=account_id))


class Taken(NamedTuple):
    """What was asked of the buckets, and what they gave."""

    charges: tuple[Charge, ...]
    decision: Decision

    @property
    def granted(self) -> int:
        return self.decision.granted


class Throttle:
    """`buckets` None: nobody is held back."""

    def __init__(self, buckets: Buckets | None) -> None:
        self._buckets = buckets

    async def submissions(self, account: Account, units: int = 1) -> Taken | None:
        """As many of `units` submissions as may be made now. None: there is no limit."""
        most = account.limits.submissions_per_minute
        if most is None:
            return None
        return await self._take(_of_account("submissions", most, account.id), units=units)

    async def reads(self, account: Account) -> Taken | None:
        most = account.limits.submissions_per_minute
        if most is None:
            return None
        return await self._take(_of_account("reads", READS * most, account.id))

    async def uploads(self, account: Account, files: int = 1) -> Taken | None:
        """So many uploads at once, all or none; more than there can be take all that there can be."""
        most = account.limits.submissions_per_minute
        if most is None:
            return None
        bucket = _of_account("uploads", UPLOADS * most, account.id).bucket
        return await self._take(Charge(bucket, min(files, bucket.capacity)))

    async def login(self, name: str, address: str) -> Taken | None:
        return await self._take(
            Charge(Bucket.per(LOGIN_SECONDS, LOGINS, kind="login", whom=f"{address} {name.strip().lower()}")),
            Charge(Bucket.per(LOGIN_SECONDS, LOGINS_OF_ADDRESS, kind="logins", whom=address)),
        )

    async def stranger(self, address: str) -> Taken | None:
        return await self._take(Charge(Bucket.per(MINUTE, STRANGERS, kind="strangers", whom=address)))

    async def _take(self, *charges: Charge, units: int = 1) -> Taken | None:
        if self._buckets is None:
            return None
        return Taken(charges, await self._buckets.take(*charges, units=units))


def rate_limited(taken: Taken) -> ServiceError:
    return ServiceError(
        Code.RATE_LIMIT_EXCEEDED,
        "Too many requests in a short time.",
        retry_after=max(taken.decision.retry_after, 1.0),
    )

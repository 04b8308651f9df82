"""API keys: made, listed, revoked, by their owners or by operators."""

from collections.abc import Collection
from typing import Final

from comfy_api_service.db import accounts, api_keys, audit
from comfy_api_service.db.base import Database, Reader, Tx
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.credentials import Scope, digest, make_api_key
from comfy_api_service.domain.errors import Code, Conflict, FieldError, NotFound, Refused, ValidationFailed
from comfy_api_service.domain.ids import LOCAL_ACCOUNT
from comfy_api_service.domain.keys import Key
from comfy_api_service.domain.principal import Actor, Credential, Kind
from comfy_api_service.domain.users import User
from comfy_api_service.services.access import Access
from comfy_api_service.services.views import Page, paged

MOST: Final = 100
"""Keys of one account that can be used."""


class Keys:
    def __init__(self, db: Database, clock: Clock, access: Access) -> None:
        self._db = db
        self._clock = clock
        self._access = access

    async def create(
        self,
        account_id: str,
        by: Actor,
        *,
        name: str,
        scopes: Collection[Scope],
        expires_at: float | None = None,
        granting: Collection[Scope] = tuple(Scope),
        until: float | None = None,
    ) -> tuple[Key, str]:
        """A new key and its text, which is known to nobody afterwards.

        `granting`: scopes that whoever makes it may give; `until`: the end of the key that it is made with. Raises
        `NotFound`, `ValidationFailed`, `Conflict`, and `Refused` (FORBIDDEN) for scopes that are not the maker's or
        the account's to have.
        """
        now = self._clock.now()
        expires_at = _end(expires_at, now, until)
        if not set(scopes) <= set(granting):
            raise Refused(Code.FORBIDDEN, "A key can have no scope that its maker does not have.")
        made = make_api_key()
        key = Key(made.public_id, account_id, name, frozenset(scopes), now, expires_at)

        async def write(tx: Tx) -> None:
            _check_owner(await accounts.hold(tx, account_id), scopes)
            if await api_keys.count_open(tx, account_id, now) >= MOST:
                raise Conflict(f"An account has at most {MOST} keys; revoke one first.")
            await api_keys.insert(tx, key, digest(made.text))
            await audit.note(
                tx, by, "key.create", now=now, target=account_id, key=key.id, scopes=sorted(scopes)
            )

        await self._db.write(write)
        return key, made.text

    async def of_account(self, account_id: str) -> list[Key]:
        return await self._db.read(lambda tx: api_keys.of_account(tx, account_id))

    async def every(self, *, after: str | None, limit: int, account_id: str | None = None) -> Page[Key]:
        """All accounts' keys, or those of one, for operators. The cursor is the last key's id of the page before."""
        found = await self._db.read(
            lambda tx: api_keys.every(tx, after=after, limit=limit + 1, account_id=account_id)
        )
        return paged(found, limit, lambda key: key.id)

    async def revoke(self, account_id: str, key_id: str, by: Actor) -> None:
        """Raises `NotFound`: absent, somebody else's, or revoked before."""
        now = self._clock.now()

        async def write(tx: Tx) -> None:
            if not await api_keys.revoke(tx, account_id, key_id, now):
                raise NotFound("key")
            await audit.note(tx, by, "key.revoke", now=now, target=account_id, key=key_id)

        await self._db.write(write)
        await self._gone(key_id)

    async def revoke_any(self, key_id: str, by: Actor) -> None:
        """Anybody's, for operators. Raises `NotFound`."""

        async def read(tx: Reader) -> str | None:
            return await api_keys.owner_of(tx, key_id)

        owner = await self._db.read(read)
        if owner is None:
            raise NotFound("key")
        await self.revoke(owner, key_id, by)

    async def _gone(self, key_id: str) -> None:
        credential = Credential(Kind.KEY, key_id)
        self._access.forget(credential)
        await self._access.look((credential,))


def _end(wanted: float | None, now: float, until: float | None) -> float | None:
    """When the new key expires: no later than the one that it is made with. Raises `ValidationFailed`."""
    if wanted is None:
        return until
    if wanted <= now:
        raise ValidationFailed([FieldError("expires_at", "must lie in the future")])
    if until is not None and wanted > until:
        raise ValidationFailed(
            [FieldError("expires_at", "must not be later than that of the key it is made with")]
        )
    return wanted


def _check_owner(user: User | None, scopes: Collection[Scope]) -> None:
    """Whether the account can have such a key. Raises as `Keys.create` says."""
    if user is None:
        raise NotFound("user")
    if user.id == LOCAL_ACCOUNT:
        raise Conflict("The local account is the service's own; nobody calls as it.")
    if user.disabled_at is not None:
        raise Conflict("The account is disabled.")
    if Scope.ADMIN in scopes and user.role is not Role.ADMIN:
        raise Refused(Code.FORBIDDEN, "Only an administrator's key can have the scope `admin`.")

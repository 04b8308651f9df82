"""What operators do with accounts; each act is in the audit log."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from comfy_api_service.db import accounts, api_keys, audit, sessions
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Conflict, FieldError, NotFound, ValidationFailed
from comfy_api_service.domain.ids import LOCAL_ACCOUNT, new_account_id
from comfy_api_service.domain.principal import Actor
from comfy_api_service.domain.tiers import Limits, LimitsAtFault, limits_of
from comfy_api_service.domain.users import User
from comfy_api_service.services.access import Access
from comfy_api_service.services.passwords import Passwords
from comfy_api_service.services.views import Page, paged
from comfy_api_service.signals.base import Signals


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be different; None stays. `overrides`: limits by name, None for the tier's own again."""

    name: str | None = None
    tier: str | None = None
    role: Role | None = None
    disabled: bool | None = None
    password: str | None = None
    overrides: Mapping[str, Any] | None = None


class Users:
    def __init__(
        self,
        db: Database,
        clock: Clock,
        access: Access,
        passwords: Passwords,
        signals: Signals,
        *,
        tiers: Mapping[str, Limits],
    ) -> None:
        self._db = db
        self._clock = clock
        self._access = access
        self._passwords = passwords
        self._signals = signals
        self.tiers = tiers

    async def create(
        self,
        by: Actor,
        *,
        email: str,
        username: str,
        password: str | None,
        tier: str = "free",
        role: Role = Role.USER,
        overrides: Mapping[str, Any] | None = None,
    ) -> User:
        """Without a password nobody can log in to it, but it can have keys. Raises `ValidationFailed`, `Conflict`."""
        now = self._clock.now()
        user = User(
            new_account_id(), username, email, username, tier, role, now, overrides=dict(overrides or {})
        )
        limits = self._limits(user)
        hashed = None if password is None else await self._passwords.hash(password)

        async def write(tx: Tx) -> None:
            await accounts.create(tx, user, limits, hashed)
            await audit.note(tx, by, "user.create", now=now, target=user.id, tier=tier, role=role)

        await self._db.write(write)
        return user

    async def get(self, account_id: str) -> User:
        """Raises `NotFound`."""
        user = await self._db.read(lambda tx: accounts.get(tx, account_id))
        if user is None:
            raise NotFound("user")
        return user

    async def named(self, name: str) -> User:
        """By id, e-mail address or username. Raises `NotFound`."""
        found = await self._db.read(lambda tx: accounts.by_name(tx, name.strip().lower()))
        found = found or await self._db.read(lambda tx: accounts.by_name(tx, name.strip()))
        if found is None:
            raise NotFound("user")
        return found[0]

    async def page(self, *, after: str | None, limit: int, search: str | None = None) -> Page[User]:
        """Oldest first. The cursor is the last account's id of the page before."""
        found = await self._db.read(lambda tx: accounts.page(tx, after=after, limit=limit + 1, search=search))
        return paged(found, limit, lambda user: user.id)

    async def change(self, account_id: str, changes: Changes, by: Actor) -> User:
        """In force at once here, everywhere within seconds; a cap from the next claim on.

        Who is disabled, or gets another password, is logged out. Raises `NotFound`, `ValidationFailed`, `Conflict`
        where nobody would be left who may administer.
        """
        hashed = None if changes.password is None else await self._passwords.hash(changes.password)
        now = self._clock.now()

        async def write(tx: Tx) -> User:
            user, new = await self._store(tx, account_id, changes, now)
            if hashed is not None:
                await accounts.set_password(tx, user.id, hashed)
            if new.disabled_at is not None or hashed is not None:
                await sessions.revoke_all(tx, user.id, now)
            await audit.note(tx, by, "user.change", now=now, target=user.id, **_told(changes))
            return new

        user = await self._db.write(write)
        self._access.forget(account_id=account_id)
        self._signals.wake()
        return user

    async def remove(self, account_id: str, by: Actor) -> None:
        """Disable it, log it out and revoke its keys for good; jobs and use stay, for billing.

        Again, it revokes what was made since. Raises `NotFound`, and `Conflict` as `change` does.
        """
        now = self._clock.now()

        async def write(tx: Tx) -> None:
            user, _ = await self._store(tx, account_id, Changes(disabled=True), now)
            ended = await sessions.revoke_all(tx, account_id, now)
            revoked = await api_keys.revoke_all(tx, account_id, now)
            if user.disabled_at is None or ended or revoked:
                await audit.note(tx, by, "user.delete", now=now, target=account_id, keys=revoked)

        await self._db.write(write)
        self._access.forget(account_id=account_id)

    async def _store(self, tx: Tx, account_id: str, changes: Changes, now: float) -> tuple[User, User]:
        """The account before and after. Those that end an administrator come one after the other: each sees who is
        left.
        """
        if changes.disabled or changes.role is Role.USER:
            await tx.lock("administrators")
        user = await accounts.hold(tx, account_id)
        if user is None:
            raise NotFound("user")
        if user.id == LOCAL_ACCOUNT:
            raise Conflict("The local account is the service's own.")
        new = _with(user, changes, now)
        await accounts.store(tx, new)
        if (changes.tier, changes.role, changes.overrides) != (None, None, None):
            await accounts.set_lane(tx, new.id, self._limits(new))
        if _administers(user) and not _administers(new) and not await accounts.administrators(tx):
            raise Conflict("The last administrator stays one.")
        return user, new

    def _limits(self, user: User) -> Limits:
        """Raises `ValidationFailed` for a tier or an override that cannot be."""
        if user.tier not in self.tiers:
            raise ValidationFailed([FieldError("tier", f"must be one of {', '.join(sorted(self.tiers))}")])
        try:
            return limits_of(self.tiers, user.tier, user.overrides, admin=user.role is Role.ADMIN)
        except LimitsAtFault as fault:
            raise ValidationFailed(
                [FieldError(f"overrides.{name}", what) for name, what in fault.faults]
            ) from None


async def apply_tiers(db: Database, tiers: Mapping[str, Limits]) -> int:
    """Caps and weights of all lanes as the tiers have them now; the number that changed. At the start of each process
    that answers callers. One account at a time: each as it is then, and held no longer than that.
    """
    others = [
        user.id
        for user, cap, weight in await db.read(accounts.lanes_of_people)
        if (cap, weight) != _in_lane(user.account(tiers).limits)
    ]

    async def apply(tx: Tx, account_id: str) -> None:
        user = await accounts.hold(tx, account_id)
        if user is not None:
            await accounts.set_lane(tx, account_id, user.account(tiers).limits)

    for account_id in others:
        await db.write(lambda tx, account_id=account_id: apply(tx, account_id))  # type: ignore[misc]
    return len(others)


def _in_lane(limits: Limits) -> tuple[int, float]:
    return accounts.cap_of(limits), limits.weight


def _administers(user: User) -> bool:
    return user.role is Role.ADMIN and user.disabled_at is None and user.username is not None


def _with(user: User, changes: Changes, now: float) -> User:
    disabled_at = user.disabled_at
    if changes.disabled is not None:
        disabled_at = (user.disabled_at or now) if changes.disabled else None
    overrides = dict(user.overrides)
    for name, value in (changes.overrides or {}).items():
        if value is None:
            overrides.pop(name, None)
        else:
            overrides[name] = value
    return replace(
        user,
        name=user.name if changes.name is None else changes.name,
        tier=user.tier if changes.tier is None else changes.tier,
        role=user.role if changes.role is None else changes.role,
        disabled_at=disabled_at,
        overrides=overrides,
    )


def _told(changes: Changes) -> dict[str, Any]:
    """For the audit log: what was changed, of a password only that it was."""
    told: dict[str, Any] = {
        name: value
        for name in ("name", "tier", "role", "disabled", "overrides")
        if (value := getattr(changes, name)) is not None
    }
    return told | ({"password": True} if changes.password is not None else {})

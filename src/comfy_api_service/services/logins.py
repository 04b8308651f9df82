"""People's sessions: register, log in, refresh, log out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from comfy_api_service.db import accounts, audit, sessions
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.sessions import Refreshed, Reused
from comfy_api_service.domain.account import Role
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.credentials import TokenKind, digest, make_token, well_formed_token
from comfy_api_service.domain.errors import Code, Refused, ServiceError
from comfy_api_service.domain.ids import new_account_id, new_session_id
from comfy_api_service.domain.principal import Actor, Credential, Kind
from comfy_api_service.domain.tiers import Limits, limits_of
from comfy_api_service.domain.users import User
from comfy_api_service.services.access import Access, unauthorized
from comfy_api_service.services.passwords import Passwords
from comfy_api_service.services.tokens import AccessTokens
from comfy_api_service.telemetry import Metrics

NEWCOMERS: Final = "free"
"""The tier of who registers."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """`expires_in`: seconds of the access token; the refresh token can be used once, until `refresh_until`."""

    access: str
    expires_in: float
    refresh: str
    refresh_until: float


class Logins:
    def __init__(
        self,
        db: Database,
        clock: Clock,
        access: Access,
        passwords: Passwords,
        tokens: AccessTokens,
        metrics: Metrics,
        *,
        tiers: Mapping[str, Limits],
        open_to_all: bool,
        access_seconds: float,
        session_seconds: float,
    ) -> None:
        """`open_to_all`: whether anybody may register; a session lasts `session_seconds` from its last refresh."""
        self._db = db
        self._clock = clock
        self._access = access
        self._passwords = passwords
        self._tokens = tokens
        self._metrics = metrics
        self._tiers = tiers
        self._open_to_all = open_to_all
        self._access_seconds = access_seconds
        self._session_seconds = session_seconds

    async def register(self, *, email: str, username: str, password: str, actor: Actor) -> User:
        """Raises `Refused` (FORBIDDEN) where registration is closed, `Conflict`, `ValidationFailed`."""
        if not self._open_to_all:
            raise Refused(Code.FORBIDDEN, "Registration is closed here; ask the operator for an account.")
        hashed = await self._passwords.hash(password)
        now = self._clock.now()
        user = User(new_account_id(), username, email, username, NEWCOMERS, Role.USER, now)

        async def write(tx: Tx) -> None:
            await accounts.create(tx, user, limits_of(self._tiers, NEWCOMERS, {}), hashed)
            await audit.note(tx, _by(actor, user.id), "user.register", now=now, target=user.id)

        await self._db.write(write)
        return user

    async def login(self, name: str, password: str, actor: Actor) -> tuple[User, Tokens]:
        """`name`: e-mail address or username. Raises `Refused` (UNAUTHORIZED), one for every reason."""
        found = await self._db.read(lambda tx: accounts.by_name(tx, name.strip().lower()))
        user, hashed = found if found is not None else (None, None)
        good = await self._passwords.verify(password, hashed)
        now = self._clock.now()
        if user is None or not good or user.disabled_at is not None:
            raise await self._refused(user, actor)
        session_id, refresh = new_session_id(), make_token(TokenKind.REFRESH)
        until = now + self._session_seconds

        async def write(tx: Tx) -> bool:
            now_held = await accounts.hold(tx, user.id)
            if now_held is None or now_held.disabled_at is not None:
                return False
            if await accounts.password_of(tx, user.id) != hashed:  # changed while the other was being hashed
                return False
            await sessions.begin(tx, session_id, user.id, digest(refresh), now=now, expires_at=until)
            await audit.note(tx, _by(actor, user.id), "login", now=now, target=user.id, session=session_id)
            return True

        if not await self._db.write(write):
            raise await self._refused(user, actor)
        self._metrics.logins.labels("ok").inc()
        return user, self._made(user.id, session_id, refresh, until)

    async def _refused(self, user: User | None, actor: Actor) -> ServiceError:
        target, now = None if user is None else user.id, self._clock.now()
        self._metrics.logins.labels("refused").inc()
        await self._db.write(lambda tx: audit.note(tx, actor, "login.refused", now=now, target=target))
        return unauthorized()

    async def refresh(self, token: str, actor: Actor) -> Tokens:
        """New tokens for a refresh token, which is used up. One that was used before ends its session: somebody has
        a copy of it. Raises `Refused` (UNAUTHORIZED).
        """
        if not well_formed_token(TokenKind.REFRESH, token):
            raise unauthorized()
        following = make_token(TokenKind.REFRESH)
        now = self._clock.now()
        until = now + self._session_seconds

        async def write(tx: Tx) -> Refreshed | Reused | None:
            outcome = await sessions.refresh(tx, digest(token), digest(following), now=now, expires_at=until)
            if outcome is not None:
                action = "session.reused" if isinstance(outcome, Reused) else "session.refresh"
                by = actor if isinstance(outcome, Reused) else _by(actor, outcome.account_id)
                await audit.note(
                    tx, by, action, now=now, target=outcome.account_id, session=outcome.session_id
                )
            return outcome

        outcome = await self._db.write(write)
        if isinstance(outcome, Reused):
            await self._ended(outcome.session_id)
        if not isinstance(outcome, Refreshed):
            raise unauthorized()
        user = await self._db.read(lambda tx: accounts.get(tx, outcome.account_id))
        if user is None or user.disabled_at is not None:
            raise unauthorized()
        return self._made(outcome.account_id, outcome.session_id, following, until)

    async def logout(self, credential: Credential | None, actor: Actor) -> None:
        """End the session that the caller's access token is of. Raises `Refused` for a caller with a key."""
        if credential is None or credential.kind is not Kind.SESSION:
            raise Refused(Code.CONFLICT, "Only a session can be logged out; a key is revoked.")
        now = self._clock.now()

        async def write(tx: Tx) -> None:
            if await sessions.revoke(tx, credential.id, now):
                await audit.note(tx, actor, "logout", now=now, target=actor.account_id, session=credential.id)

        await self._db.write(write)
        await self._ended(credential.id)

    async def _ended(self, session_id: str) -> None:
        credential = Credential(Kind.SESSION, session_id)
        self._access.forget(credential)
        await self._access.look((credential,))

    def _made(self, account_id: str, session_id: str, refresh: str, until: float) -> Tokens:
        return Tokens(self._tokens.issue(account_id, session_id), self._access_seconds, refresh, until)


def _by(actor: Actor, account_id: str) -> Actor:
    return Actor(account_id, actor.address, actor.request_id)

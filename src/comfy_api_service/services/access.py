"""Who calls: from what was sent as a credential to an account, at the cost of a look into a table of this process.

What stands behind a credential is believed for `FRESH_SECONDS`, then read again, one query however many ask. So
a revocation, a new tier or a disabled account holds everywhere after that time, on open streams too, whatever
becomes of Redis; while the database is away nobody is let in whose time is over.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from comfy_api_service.db import api_keys, credentials, sessions
from comfy_api_service.db.base import Database
from comfy_api_service.db.credentials import Known
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.credentials import (
    TokenKind,
    digest,
    make_token,
    matches,
    parse_api_key,
    well_formed_token,
)
from comfy_api_service.domain.errors import Code, Conflict, Refused, ServiceError, Unavailable
from comfy_api_service.domain.principal import Credential, Kind, Principal
from comfy_api_service.domain.tiers import Limits
from comfy_api_service.services.tokens import AccessTokens

K = TypeVar("K")
V = TypeVar("V")
FRESH_SECONDS: Final = 2.0
MOST: Final = 20_000
"""Credentials that are remembered; then all are forgotten, and asked for again."""
MOST_ABSENT: Final = 1_000
"""Credentials that are remembered to be no good."""
USES_SECONDS: Final = 10.0
"""Between two writings of when keys were last used."""
TICKET_SECONDS: Final = 30.0


def unauthorized() -> ServiceError:
    """One answer for every credential that is no good: it tells nothing of why."""
    return Refused(Code.UNAUTHORIZED, "A valid credential is needed.")


@dataclass(frozen=True, slots=True)
class _Entry:
    """What was read, None if nothing good was there; `at` is monotonic."""

    known: Known | None
    principal: Principal | None
    at: float


def _kept(entries: dict[K, V], most: int, key: K, entry: V) -> V:
    if len(entries) >= most and key not in entries:
        entries.clear()
    entries[key] = entry
    return entry


class Access:
    """`enabled` False: everybody is the local account, and what is sent is ignored."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        tokens: AccessTokens,
        *,
        tiers: Mapping[str, Limits],
        enabled: bool,
        limited: bool,
    ) -> None:
        """`limited` False: what tiers allow is not held against anybody at the door."""
        self._db = db
        self._clock = clock
        self._tokens = tokens
        self._tiers = tiers
        self._limited = limited
        self.enabled = enabled
        self._entries: dict[Credential, _Entry] = {}
        self._absent: dict[Credential, _Entry] = {}
        self._of_keys: dict[str, Credential] = {}
        """Which key a text with this digest is, of those that were good once: they need not be taken apart again."""
        self._reading: dict[Credential, asyncio.Task[_Entry]] = {}
        self._used: dict[str, float] = {}
        self._watched: dict[Credential, set[Callable[[], None]]] = {}

    # --- from what was sent ----------------------------------------------------------------------------

    async def of_sent(self, text: str) -> Principal:
        """By an API key or an access token. Raises `Refused` (UNAUTHORIZED), and `Unavailable`."""
        sent = digest(text)
        credential = self._of_keys.get(sent) or self._of_key(text)
        if credential is not None:
            entry = await self._entry(credential)
            good = matches(sent, None if entry.known is None else entry.known.digest)
            if not good or entry.principal is None:
                raise unauthorized()
            _kept(self._of_keys, MOST, sent, credential)
            self._used[credential.id] = self._clock.now()
            return entry.principal
        claims = self._tokens.read(text)
        if claims is None:
            raise unauthorized()
        principal = (await self._entry(Credential(Kind.SESSION, claims.session_id))).principal
        if principal is None or principal.account.id != claims.account_id:
            raise unauthorized()
        return principal

    def _of_key(self, text: str) -> Credential | None:
        key = parse_api_key(text)
        return None if key is None else Credential(Kind.KEY, key.public_id)

    async def of_ticket(self, text: str) -> Principal:
        """By a ticket, which is used up. Raises as `of_sent` does."""
        if not well_formed_token(TokenKind.TICKET, text):
            raise unauthorized()
        now = self._clock.now()
        if not await self._db.read(lambda tx: sessions.has_ticket(tx, digest(text))):
            raise unauthorized()  # invented ones cost no write
        credential = await self._db.write(lambda tx: sessions.take_ticket(tx, digest(text), now))
        principal = None if credential is None else (await self._entry(credential)).principal
        if principal is None:
            raise unauthorized()
        return principal

    async def ticket(self, principal: Principal) -> tuple[str, float]:
        """A text that stands for the caller's own credential, once, and until when."""
        credential = principal.credential
        if credential is None:
            raise Conflict("Without authentication no ticket is needed.")
        text = make_token(TokenKind.TICKET)
        until = self._clock.now() + TICKET_SECONDS
        await self._db.write(lambda tx: sessions.add_ticket(tx, digest(text), credential, until))
        return text, until

    # --- what stands behind it -------------------------------------------------------------------------

    async def _entry(self, credential: Credential) -> _Entry:
        entry = self._entries.get(credential) or self._absent.get(credential)
        if entry is None or self._clock.monotonic() - entry.at >= FRESH_SECONDS:
            entry = await self._read(credential)
        if entry.known is not None and self._expired(entry.known):
            return replace(entry, principal=None)
        return entry

    def _expired(self, known: Known) -> bool:
        return known.expires_at is not None and known.expires_at <= self._clock.now()

    async def _read(self, credential: Credential) -> _Entry:
        """Those who ask while it is read wait for the same answer."""
        task = self._reading.get(credential)
        if task is None:
            task = asyncio.create_task(self._load(credential))
            self._reading[credential] = task
            task.add_done_callback(lambda _: self._reading.pop(credential, None))
        return await asyncio.shield(task)

    async def _load(self, credential: Credential) -> _Entry:
        at = self._clock.monotonic()
        found = await self._db.read(lambda tx: credentials.load(tx, (credential,)))
        return self._keep(credential, found.get(credential), at)

    def _keep(self, credential: Credential, known: Known | None, at: float) -> _Entry:
        """`at`: when the reading began."""
        if known is None:  # kept apart: whoever invents credentials drives out nobody's
            self._entries.pop(credential, None)
            return _kept(self._absent, MOST_ABSENT, credential, _Entry(None, None, at))
        self._absent.pop(credential, None)
        return _kept(self._entries, MOST, credential, _Entry(known, self._principal(credential, known), at))

    def _principal(self, credential: Credential, known: Known) -> Principal:
        account = known.user.account(self._tiers)
        if not self._limited:
            account = replace(account, limits=account.limits.without_limits())
        ends_at = known.expires_at if credential.kind is Kind.KEY else None
        return Principal(account, known.scopes, credential, ends_at)

    def forget(self, *changed: Credential, account_id: str | None = None) -> None:
        """Something was changed here: this process need not wait for its next look."""
        for credential in changed:
            self._entries.pop(credential, None)
            self._absent.pop(credential, None)
        if account_id is not None:
            self._absent.clear()
            of_account = [
                credential
                for credential, entry in self._entries.items()
                if entry.known is not None and entry.known.user.id == account_id
            ]
            for credential in of_account:
                del self._entries[credential]

    # --- open streams ----------------------------------------------------------------------------------

    def watch(self, principal: Principal, gone: Callable[[], None]) -> Callable[[], None]:
        """`gone` is called when the caller's credential is no good any more, until what is given back is called."""
        credential = principal.credential
        if credential is None:
            return lambda: None
        self._watched.setdefault(credential, set()).add(gone)

        def forget() -> None:
            listeners = self._watched.get(credential, set())
            listeners.discard(gone)
            if not listeners:
                self._watched.pop(credential, None)

        return forget

    async def run(self) -> None:
        """Until cancelled: look after the credentials of open streams."""
        while True:
            await asyncio.sleep(FRESH_SECONDS)
            with contextlib.suppress(Unavailable):  # others tell of it
                await self.look(tuple(self._watched))

    async def keep_uses(self) -> None:
        """Until cancelled, by itself: a write may have to wait, and those who look after streams may not."""
        while True:
            await asyncio.sleep(USES_SECONDS)
            with contextlib.suppress(Unavailable):
                await self.note_uses()

    async def look(self, watched: Collection[Credential]) -> None:
        """Read what stands behind these, and tell the streams of those that are no good."""
        if not watched:
            return
        at = self._clock.monotonic()
        found = await self._db.read(lambda tx: credentials.load(tx, watched))
        for credential in watched:
            entry = self._keep(credential, found.get(credential), at)
            if entry.known is None or self._expired(entry.known):
                for gone in tuple(self._watched.get(credential, ())):
                    gone()

    async def note_uses(self) -> None:
        """Write down when keys were last used."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._db.write(lambda tx: api_keys.note_use(tx, used))
        except Unavailable:
            self._used = used | self._used
            raise

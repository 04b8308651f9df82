"""Webhooks of an account: registered, changed, rotated, tried, and the log of what was delivered."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from comfy_api_service.db import audit, deliveries, webhooks
from comfy_api_service.db.base import Database, Reader, Tx
from comfy_api_service.db.webhooks import AccountSecret
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Conflict, FieldError, NotFound, ValidationFailed
from comfy_api_service.domain.ids import new_delivery_id, new_webhook_id
from comfy_api_service.domain.principal import Actor
from comfy_api_service.domain.redelivery import DELIVERY_SECONDS
from comfy_api_service.domain.signing import make_secret, shown
from comfy_api_service.domain.webhook import (
    Delivery,
    DeliveryState,
    Disabled,
    Trouble,
    Webhook,
    WebhookEvent,
)
from comfy_api_service.outbound.addresses import AddressRefused, target
from comfy_api_service.services.sealing import Sealer
from comfy_api_service.services.views import Page, paged

MOST: Final = 20
"""Webhooks of one account."""
OVERLAP_SECONDS: Final = 86_400.0
"""How long deliveries are signed with the secret before a rotation, too."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What is None stays as it is."""

    url: str | None = None
    events: Sequence[WebhookEvent] | None = None
    enabled: bool | None = None


def check_url(url: str, *, allow_private: bool, field: str = "url") -> None:
    """Whether it may be delivered to, as far as can be told without a look at its name. Raises `ValidationFailed`."""
    try:
        target(url, allow_private=allow_private)
    except AddressRefused as fault:
        text = str(fault)
        told = text[:1].lower() + text[1:].rstrip(".")
        if not allow_private and _usable(url):
            told = (
                "must be an https URL, on port 443 of a public address (an operator may allow others: "
                "WEBHOOK_ALLOW_PRIVATE)"
            )
        raise ValidationFailed([FieldError(field, told)]) from None


def _usable(url: str) -> bool:
    """Whether it may be asked where the operator allows more."""
    try:
        target(url, allow_private=True)
    except AddressRefused:
        return False
    return True


class Webhooks:
    def __init__(
        self,
        db: Database,
        clock: Clock,
        sealer: Sealer,
        *,
        allow_private: bool,
        nudge: Callable[[], None] = lambda: None,
    ) -> None:
        """`nudge`: there is something to deliver, if somebody in this process does so."""
        self._db = db
        self._clock = clock
        self._sealer = sealer
        self._allow_private = allow_private
        self._nudge = nudge

    def check_url(self, url: str) -> None:
        """Of a job. Raises `ValidationFailed`."""
        check_url(url, allow_private=self._allow_private, field="webhook_url")

    async def create(
        self, account_id: str, by: Actor, *, url: str, events: Sequence[WebhookEvent]
    ) -> tuple[Webhook, str]:
        """A new webhook and its secret, which is not told again. Raises `ValidationFailed`, `Conflict`."""
        check_url(url, allow_private=self._allow_private)
        now = self._clock.now()
        webhook = Webhook(new_webhook_id(), account_id, url, tuple(dict.fromkeys(events)), now, now)
        secret, sealed = self._fresh(account_id)

        async def write(tx: Tx) -> None:
            await tx.lock(f"webhooks of {account_id}")
            if await webhooks.count(tx, account_id) >= MOST:
                raise Conflict(f"An account has at most {MOST} webhooks; delete one first.")
            await webhooks.insert(tx, webhook, sealed)
            await self._note(tx, by, "webhook.create", webhook, events=sorted(webhook.events))

        await self._db.write(write)
        return webhook, secret

    async def of_account(self, account_id: str) -> list[Webhook]:
        return await self._db.read(lambda tx: webhooks.of_account(tx, account_id))

    async def get(self, account_id: str, webhook_id: str) -> Webhook:
        """Raises `NotFound`."""
        found = await self._db.read(lambda tx: webhooks.get(tx, account_id, webhook_id))
        if found is None:
            raise NotFound("webhook")
        return found

    async def change(self, account_id: str, webhook_id: str, changes: Changes, by: Actor) -> Webhook:
        """What waits for a webhook that is disabled is given up, and can be sent again later.

        Raises `NotFound`, `ValidationFailed`.
        """
        if changes.url is not None:
            check_url(changes.url, allow_private=self._allow_private)
        now = self._clock.now()

        async def write(tx: Tx) -> Webhook:
            await deliveries.hold_lane(tx, account_id, webhook_id)
            held = await webhooks.hold(tx, account_id, webhook_id)
            if held is None:
                raise NotFound("webhook")
            changed = _changed(held, changes, now)
            await webhooks.store(tx, changed)
            if changed.disabled_at is not None and held.disabled_at is None:
                await deliveries.give_up(tx, account_id, webhook_id, Trouble.DISABLED, now)
            told = {name: True for name in ("url", "events") if getattr(changes, name) is not None}
            if changes.enabled is not None:
                told["enabled"] = changes.enabled
            await self._note(tx, by, "webhook.change", held, **told)
            return changed

        return await self._db.write(write)

    async def delete(self, account_id: str, webhook_id: str, by: Actor) -> None:
        """With its log. Raises `NotFound`."""
        now = self._clock.now()

        async def write(tx: Tx) -> None:
            await deliveries.hold_lane(tx, account_id, webhook_id)
            if not await webhooks.delete(tx, account_id, webhook_id, now):
                raise NotFound("webhook")
            await audit.note(tx, by, "webhook.delete", now=now, target=account_id, webhook=webhook_id)

        await self._db.write(write)

    async def rotate(self, account_id: str, webhook_id: str, by: Actor) -> tuple[Webhook, str]:
        """A new secret, which is not told again; deliveries are signed with both for a while. Raises `NotFound`."""
        now = self._clock.now()
        secret, sealed = self._fresh(account_id)

        async def write(tx: Tx) -> Webhook:
            held = await webhooks.hold(tx, account_id, webhook_id)
            if held is None:
                raise NotFound("webhook")
            await self._note(tx, by, "webhook.rotate", held)
            return await webhooks.rotate(tx, held, sealed, now=now, until=now + OVERLAP_SECONDS)

        return await self._db.write(write), secret

    async def account_secret(self, account_id: str) -> AccountSecret | None:
        """What is known of the secret for URLs of jobs; None: there is none yet."""
        return await self._db.read(lambda tx: webhooks.account_secret(tx, account_id))

    async def rotate_account_secret(self, account_id: str, by: Actor) -> tuple[AccountSecret, str]:
        """The first, or a new one, which is not told again."""
        now = self._clock.now()
        secret, sealed = self._fresh(account_id)

        async def write(tx: Tx) -> AccountSecret:
            found = await webhooks.rotate_account_secret(
                tx, account_id, sealed, now=now, until=now + OVERLAP_SECONDS
            )
            await audit.note(tx, by, "webhook.rotate_secret", now=now, target=account_id)
            return found

        return await self._db.write(write), secret

    async def test(self, account_id: str, webhook_id: str) -> Delivery:
        """A delivery to be sent now, of nothing that happened. Raises `NotFound`, `Conflict`."""
        now = self._clock.now()
        delivery = Delivery(
            id=new_delivery_id(),
            account_id=account_id,
            webhook_id=webhook_id,
            receiver=webhook_id,
            url=None,
            job_id=None,
            type=WebhookEvent.TEST,
            seq=None,
            event_at=now,
            state=DeliveryState.WAITING,
            attempts=0,
            next_at=now,
            expires_at=now + DELIVERY_SECONDS,
            created_at=now,
        )

        async def write(tx: Tx) -> None:
            _check_enabled(await webhooks.get(tx, account_id, webhook_id))
            await deliveries.insert(tx, delivery)

        await self._db.write(write)
        self._nudge()
        return delivery

    async def deliveries(
        self,
        account_id: str,
        *,
        webhook_id: str | None = None,
        state: DeliveryState | None = None,
        cursor: str | None,
        limit: int,
    ) -> tuple[Webhook | None, Page[Delivery]]:
        """Newest first, of one webhook or of all and of URLs of jobs; the webhook, too. Raises `NotFound`."""

        async def read(tx: Reader) -> tuple[Webhook | None, list[Delivery]]:
            webhook = None if webhook_id is None else await webhooks.get(tx, account_id, webhook_id)
            if webhook_id is not None and webhook is None:
                raise NotFound("webhook")
            return webhook, await deliveries.page(
                tx, account_id, before=cursor, limit=limit + 1, webhook_id=webhook_id, state=state
            )

        webhook, found = await self._db.read(read)
        return webhook, paged(found, limit, lambda one: one.id)

    async def replay(self, account_id: str, delivery_id: str) -> Delivery:
        """Sent again, with the same id, for as long as a new one would be tried. Raises `NotFound`, `Conflict`."""
        now = self._clock.now()

        async def write(tx: Tx) -> Delivery:
            known = await deliveries.get(tx, account_id, delivery_id)
            if known is None:
                raise NotFound("delivery")
            if known.webhook_id is not None:
                _check_enabled(await webhooks.get(tx, account_id, known.webhook_id))
            await deliveries.again(tx, known, now=now, expires_at=now + DELIVERY_SECONDS)
            return replace(
                known,
                state=DeliveryState.WAITING,
                next_at=now,
                expires_at=now + DELIVERY_SECONDS,
                ended_at=None,
            )

        replayed = await self._db.write(write)
        self._nudge()
        return replayed

    def _fresh(self, account_id: str) -> tuple[str, bytes]:
        """A secret as it is shown, and as it is kept."""
        secret = make_secret()
        return shown(secret), self._sealer.seal(secret, account_id)

    async def _note(self, tx: Tx, by: Actor, action: str, webhook: Webhook, **data: object) -> None:
        await audit.note(
            tx, by, action, now=self._clock.now(), target=webhook.account_id, webhook=webhook.id, **data
        )


def _changed(held: Webhook, changes: Changes, now: float) -> Webhook:
    changed = replace(
        held,
        url=changes.url or held.url,
        events=held.events if changes.events is None else tuple(dict.fromkeys(changes.events)),
        updated_at=now,
    )
    if changes.enabled is True:
        return replace(changed, disabled_at=None, disabled_reason=None, failing_since=None)
    if changes.enabled is False and held.disabled_at is None:
        return replace(changed, disabled_at=now, disabled_reason=Disabled.OWNER)
    return changed


def _check_enabled(webhook: Webhook | None) -> None:
    if webhook is None:
        raise NotFound("webhook")
    if webhook.disabled_at is not None:
        raise Conflict("The webhook is disabled; enable it first.")

"""Retries: their pauses, what a receiver may ask for, and signatures that receivers' own library believes."""

import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from comfy_api_service.domain import redelivery
from comfy_api_service.domain.signing import make_secret, shown, signature
from comfy_api_service.domain.webhook import Attempt, Delivery, DeliveryState, Trouble, WebhookEvent, told_of


def test_pauses_double_up_to_a_bound_and_fill_three_days() -> None:
    pauses = [redelivery.pause(attempts, first=5.0, draw=0.5) for attempts in range(1, 40)]
    assert pauses[:4] == [5, 10, 20, 40]
    assert max(pauses) == redelivery.LONGEST_PAUSE
    within = [sum(pauses[:count]) for count in range(40)]
    assert 20 < sum(at < redelivery.DELIVERY_SECONDS for at in within) < 30


def test_the_last_attempt_is_just_before_the_end() -> None:
    last = 1_000.0 - redelivery.LAST_SECONDS
    assert redelivery.in_time(900.0, 1_000.0, 500.0) == 900.0
    assert redelivery.in_time(5_000.0, 1_000.0, 500.0) == last
    assert redelivery.in_time(last + 1, 1_000.0, last - 1) == last
    assert redelivery.in_time(5_000.0, 1_000.0, last) is None


def test_own_faults_are_counted_in_a_row() -> None:
    def of(*errors: Trouble) -> int:
        log = tuple(Attempt(0.0, 0.0, None, error) for error in errors)
        made = Delivery(
            id="msg_1",
            account_id="acc_1",
            webhook_id=None,
            receiver="url_1",
            url=None,
            job_id=None,
            type=WebhookEvent.TEST,
            seq=None,
            event_at=0.0,
            state=DeliveryState.WAITING,
            attempts=0,
            next_at=0.0,
            expires_at=1.0,
            created_at=0.0,
            log=log,
        )
        return made.own_faults

    assert of() == of(Trouble.INTERNAL, Trouble.STATUS) == 0
    assert of(Trouble.STATUS, Trouble.INTERNAL, Trouble.INTERNAL) == 2


def test_pauses_are_spread() -> None:
    assert redelivery.pause(1, first=4.0, draw=0.0) == 3.0
    assert redelivery.pause(1, first=4.0, draw=1.0) == 5.0


def test_a_receiver_is_left_alone_after_several_failures_and_never_for_long() -> None:
    rests = [redelivery.rest(failures, first=5.0, draw=0.5) for failures in range(40)]
    assert rests[:7] == [0, 0, 0, 0, 0, 1, 2]
    assert max(rests) == redelivery.LONGEST_REST


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 7 ", 7),
        ("999999", redelivery.LONGEST_RETRY_AFTER),
        ("Thu, 01 Jan 1970 00:20:00 GMT", 200),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("Thu, 99 Jan 1970", None),
    ],
)
def test_what_a_receiver_asks_for(header: str | None, seconds: float | None) -> None:
    assert redelivery.asked_for(header, 1_000.0) == seconds


def test_each_secret_verifies_and_no_other() -> None:
    old, new, other = make_secret(), make_secret(), make_secret()
    now = int(time.time())
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now)}
    headers["webhook-signature"] = signature((new, old), "msg_1", now, b'{"a":1}')
    for secret in (old, new):
        assert Webhook(shown(secret)).verify(b'{"a":1}', headers) == {"a": 1}
    for secret, body in ((other, b'{"a":1}'), (new, b'{"a":2}')):
        with pytest.raises(WebhookVerificationError):
            Webhook(shown(secret)).verify(body, headers)


def test_what_receivers_hear_of() -> None:
    assert told_of("running", "running") is WebhookEvent.RUNNING
    assert [told_of("done", status) for status in ("succeeded", "failed", "canceled")] == [
        WebhookEvent.SUCCEEDED,
        WebhookEvent.FAILED,
        WebhookEvent.CANCELED,
    ]
    assert {told_of(kind, "queued") for kind in ("queued", "requeued", "artifact")} == {None}

"""Outbox and lanes in the database: each event once, each receiver held by one, and taken over when its holder dies."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from tests.support.rows import Pair, add_accounts, new_job, put, until_somebody_waits

from comfy_api_service.db import deliveries, dispatch, transitions, webhooks
from comfy_api_service.db.base import Database, Tx
from comfy_api_service.db.dispatch import HOLD_SECONDS, Lane, Next, Outcome, Report, Room
from comfy_api_service.domain.ids import LOCAL_ACCOUNT
from comfy_api_service.domain.submission import JobOptions
from comfy_api_service.domain.webhook import Attempt, Delivery, DeliveryState, Trouble, Webhook, WebhookEvent

QUIET = Report(0, 0.0)


async def canceled(db: Database, *hosts: str, now: float = 10.0) -> list[str]:
    """Jobs that ended, each with a receiver of its own."""
    jobs = [new_job(fingerprint=host, options=JobOptions(webhook_url=f"https://{host}/x")) for host in hosts]
    ids = await put(db, *jobs)
    for job_id in ids:
        await db.write(lambda tx: transitions.cancel(tx, LOCAL_ACCOUNT, job_id, now=now))  # noqa: B023
    return ids


async def fan_out(db: Database, now: float = 10.0, limit: int = 100) -> int:
    return (await db.write(lambda tx: dispatch.fan_out(tx, now=now, limit=limit)))[0]


async def claim(db: Database, holder: str, now: float, most: int = 10, failing: int = 10) -> list[Lane]:
    room = Room(most=most, most_failing=failing, each=100, left={}, worked=())
    return await db.write(lambda tx: dispatch.claim(tx, holder, room, now))


async def renew(db: Database, holder: str, worked: Sequence[str], now: float) -> frozenset[str]:
    return await db.write(lambda tx: dispatch.renew(tx, holder, worked, now))


async def step(
    db: Database,
    lane: Lane,
    holder: str,
    report: Report = QUIET,
    *,
    open_ids: Sequence[str] = (),
    room: int = 10,
    now: float = 10.0,
) -> Next:
    return await db.write(
        lambda tx: dispatch.step(tx, lane, holder, report, open_ids=open_ids, room=room, now=now)
    )


def outcome(delivery: Delivery, state: DeliveryState, next_at: float | None = None) -> Outcome:
    error = None if state is DeliveryState.DELIVERED else Trouble.STATUS
    return Outcome(delivery, Attempt(11.0, 0.1, 200, error), state, next_at)


async def states(db: Database) -> Counter[str]:
    rows = await db.read(lambda tx: tx.all("SELECT state FROM webhook_deliveries"))
    return Counter(row["state"] for row in rows)


async def test_each_entry_becomes_a_delivery_once_however_many_look(both: Pair) -> None:
    ids = await canceled(both[0], *(f"r{number}.example" for number in range(30)))
    looks = [fan_out(db, limit=7) for db in both for _ in range(6)]
    await asyncio.gather(*looks)
    while await fan_out(both[0], limit=7):
        pass
    rows = await both[0].read(lambda tx: tx.all("SELECT job_id, type, seq FROM webhook_deliveries"))
    assert sorted(row["job_id"] for row in rows) == sorted(ids)
    assert {(row["type"], row["seq"]) for row in rows} == {("job.canceled", 2)}
    assert await both[0].read(lambda tx: tx.all("SELECT id FROM outbox WHERE handled_at IS NULL")) == []


async def test_a_lane_is_held_by_one(both: Pair) -> None:
    await canceled(both[0], *(f"r{number}.example" for number in range(20)))
    await fan_out(both[0])
    found = await asyncio.gather(*(claim(db, f"{holder}", 10.0, 4) for holder, db in enumerate(both * 4)))
    held = [lane.receiver for lanes in found for lane in lanes]
    assert len(held) == len(set(held)) <= 20
    rest = await claim(both[0], "last", 10.0, 100)
    assert len(held) + len(rest) == 20


async def test_a_dead_holders_lane_is_taken_over_and_its_word_counts_no_more(db: Database) -> None:
    await canceled(db, "r.example")
    await fan_out(db)
    (lane,) = await claim(db, "first", 10.0)
    taken = await step(db, lane, "first")
    (delivery,) = taken.deliveries
    assert await claim(db, "second", 10.0 + HOLD_SECONDS - 1) == []
    (again,) = await claim(db, "second", 10.0 + HOLD_SECONDS)
    late = Report(0, 0.0, (outcome(delivery, DeliveryState.DELIVERED),))
    assert (await step(db, lane, "first", late)).ended
    assert await states(db) == {"waiting": 1}
    assert await renew(db, "first", [lane.receiver], 20.0) == frozenset()
    assert [one.id for one in (await step(db, again, "second", now=20.0)).deliveries] == [delivery.id]
    assert (await step(db, again, "second", late, now=20.0)).ended
    assert await states(db) == {"delivered": 1}


async def test_who_renews_keeps_its_lane(db: Database) -> None:
    await canceled(db, "r.example")
    await fan_out(db)
    (lane,) = await claim(db, "first", 10.0)
    for now in (12.0, 16.0, 21.0):
        assert await renew(db, "first", [lane.receiver], now) == {lane.receiver}
        assert await claim(db, "second", now + HOLD_SECONDS - 0.1) == []


async def test_what_is_held_beside_what_is_worked_runs_out(db: Database) -> None:
    await canceled(db, "worked.example", "not.example")
    await fan_out(db)
    worked, left = await claim(db, "first", 10.0)
    assert await renew(db, "first", [worked.receiver], 12.0) == {worked.receiver}
    assert await claim(db, "second", 10.0 + HOLD_SECONDS) == [left]


async def test_letting_go_of_all_locks_in_the_order_of_those_who_add(both: Pair) -> None:
    """Else the two would wait for each other, and one of them be run again."""
    await add_accounts(both[0], "b", "a")
    for receiver in ("b", "a"):
        lane = {"receiver": receiver, "account": receiver, "webhook": None, "now": 10.0}
        await both[0].write(lambda tx: tx.run(deliveries.LANE, lane))  # noqa: B023
    assert len(await claim(both[0], "first", 10.0)) == 2
    for receiver, at in (("b", 11.0), ("a", 12.0)):  # as they lie in the table now
        again = "UPDATE webhook_lanes SET used_at = :at WHERE receiver = :receiver"
        await both[0].write(lambda tx: tx.run(again, {"receiver": receiver, "at": at}))  # noqa: B023
    locked = asyncio.Event()
    runs: Counter[str] = Counter()

    async def add(tx: Tx) -> None:
        runs["add"] += 1
        await tx.run(deliveries.LANE, {"receiver": "a", "account": "a", "webhook": None, "now": 11.0})
        locked.set()
        await until_somebody_waits(both[1])
        await tx.run(deliveries.LANE, {"receiver": "b", "account": "b", "webhook": None, "now": 11.0})

    async def let_go(tx: Tx) -> None:
        runs["let go"] += 1
        await dispatch.free(tx, "first", 12.0)

    adding = asyncio.create_task(both[0].write(add))
    await locked.wait()
    await both[1].write(let_go)
    await adding
    assert len(await claim(both[0], "second", 12.0)) == 2
    assert runs == {"add": 1, "let go": 1}


async def test_a_claim_takes_what_can_be_served(db: Database) -> None:
    """Of each account as much as there is room for, and none that is worked already; the rest stays as it is."""
    await add_accounts(db, "full", "busy", "idle")
    for account in ("full", "busy", "idle"):
        for number in range(4):
            receiver = f"{account}{number}"
            lane = {"receiver": receiver, "account": account, "webhook": None, "now": float(number)}
            await db.write(lambda tx: tx.run(deliveries.LANE, lane))  # noqa: B023
    room = Room(most=6, most_failing=6, each=2, left={"full": 0, "busy": 1}, worked=["idle0"])
    found = await db.write(lambda tx: dispatch.claim(tx, "first", room, 10.0))
    assert sorted(lane.receiver for lane in found) == ["busy0", "idle1", "idle2"]
    rows = await db.read(
        lambda tx: tx.all("SELECT receiver FROM webhook_lanes WHERE due_at < 10 AND holder IS NULL")
    )
    assert len(rows) == 9


async def test_a_webhook_and_what_waits_for_it_go_by_chunks(db: Database) -> None:
    now = 10.0
    for webhook_id in ("whk_disabled", "whk_deleted"):
        made = Webhook(webhook_id, LOCAL_ACCOUNT, "https://a.example/", (WebhookEvent.SUCCEEDED,), now, now)
        await db.write(lambda tx: webhooks.insert(tx, made, b"sealed"))  # noqa: B023
        for number in range(3):
            one = a_test(f"{webhook_id} {number}", webhook_id, now)
            await db.write(lambda tx: deliveries.insert(tx, one))  # noqa: B023
    assert await db.write(lambda tx: webhooks.delete(tx, LOCAL_ACCOUNT, "whk_deleted", now))
    assert not await db.write(lambda tx: webhooks.delete(tx, LOCAL_ACCOUNT, "whk_deleted", now))
    for limit, expected in ((2, 2), (2, 1), (2, 0)):
        assert await db.write(lambda tx: dispatch.forget_deleted(tx, limit=limit)) == expected  # noqa: B023
    for table, expected in (("webhooks", 1), ("webhook_lanes", 1), ("webhook_deliveries", 3)):
        assert len(await db.read(lambda tx: tx.all(f"SELECT * FROM {table}"))) == expected  # noqa: B023
    await db.write(lambda tx: tx.run("UPDATE webhooks SET disabled_at = :now", {"now": now}))
    given_up = await db.write(
        lambda tx: deliveries.give_up(tx, LOCAL_ACCOUNT, "whk_disabled", Trouble.DISABLED, now, limit=1)
    )
    assert (given_up, await states(db)) == (1, {"failed": 1, "waiting": 2})
    assert await db.write(lambda tx: dispatch.give_up_disabled(tx, now, limit=1)) == 1
    assert await db.write(lambda tx: dispatch.give_up_disabled(tx, now, limit=10)) == 1
    assert await states(db) == {"failed": 3}


def a_test(delivery_id: str, webhook_id: str, now: float) -> Delivery:
    return Delivery(
        id=delivery_id,
        account_id=LOCAL_ACCOUNT,
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
        expires_at=now + 1.0,
        created_at=now,
    )


async def test_what_is_added_to_a_held_lane_is_due_when_it_is_let_go(db: Database) -> None:
    await canceled(db, "r.example")
    await fan_out(db)
    (lane,) = await claim(db, "first", 10.0)
    (delivery,) = (await step(db, lane, "first")).deliveries
    await canceled(db, "r.example")
    await fan_out(db)
    done = Report(0, 0.0, (outcome(delivery, DeliveryState.DELIVERED),))
    assert (await step(db, lane, "first", done, room=0)).ended
    (lane,) = await claim(db, "second", 10.0)
    assert len((await step(db, lane, "second")).deliveries) == 1


async def test_adding_and_letting_go_at_once_leave_nothing_behind(both: Pair) -> None:
    """Whoever is second sees what the first has done: a lane with something due is never left without a time."""
    await canceled(both[0], "r.example")
    await fan_out(both[0])
    for _ in range(25):
        (lane,) = await claim(both[0], "one", 10.0)
        found = await step(both[0], lane, "one")
        done = Report(0, 0.0, tuple(outcome(one, DeliveryState.DELIVERED) for one in found.deliveries))
        await canceled(both[1], "r.example")
        await asyncio.gather(step(both[0], lane, "one", done, room=0), fan_out(both[1]))


async def test_a_rest_is_kept_by_what_is_added_meanwhile(db: Database) -> None:
    await canceled(db, "r.example")
    await fan_out(db)
    (lane,) = await claim(db, "first", 10.0)
    (delivery,) = (await step(db, lane, "first")).deliveries
    failed = Report(5, 100.0, (outcome(delivery, DeliveryState.WAITING, 12.0),))
    assert (await step(db, lane, "first", failed)).ended
    await canceled(db, "r.example")
    await fan_out(db, now=50.0)
    assert await claim(db, "first", 99.0) == []
    (lane,) = await claim(db, "first", 100.0)
    assert lane.failures == 5


async def test_receivers_that_keep_failing_take_nobody_elses_place(db: Database) -> None:
    await canceled(db, *(f"bad{number}.example" for number in range(6)))
    await fan_out(db)
    for lane in await claim(db, "first", 10.0):
        found = await step(db, lane, "first")
        waits = tuple(outcome(one, DeliveryState.WAITING, 11.0) for one in found.deliveries)
        await step(db, lane, "first", Report(3, 0.0, waits))
    await canceled(db, "good.example", now=90.0)
    await fan_out(db, now=90.0)
    lanes = await claim(db, "first", 100.0, most=5, failing=2)
    assert sorted(lane.failures for lane in lanes) == [0, 3, 3]


async def test_what_was_tried_for_long_enough_ends_and_what_is_old_goes(db: Database) -> None:
    await canceled(db, "r.example")
    await fan_out(db)
    late = 10.0 + 3 * 86_400.0
    assert await db.write(lambda tx: dispatch.expire(tx, late - 1, limit=10)) == 0
    assert await db.write(lambda tx: dispatch.expire(tx, late, limit=10)) == 1
    assert await states(db) == {"failed": 1}
    (lane,) = await claim(db, "first", late)
    assert (await step(db, lane, "first", now=late)).ended
    assert await db.write(lambda tx: dispatch.forget(tx, before=10.0, limit=10)) == 0
    assert await db.write(lambda tx: dispatch.forget(tx, before=late + 1, limit=10)) == 1
    for table in ("webhook_deliveries", "webhook_lanes"):
        assert await db.read(lambda tx: tx.all(f"SELECT * FROM {table}")) == []  # noqa: B023

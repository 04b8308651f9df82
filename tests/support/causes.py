"""What makes each metric of docs/METRICS.md move: one table, run against a service that has every part.

A cause is a context: inside it the figures it names have changed, and it leaves the stage as it found it.
"""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from tests.support.api import SMALL, Client, serving
from tests.support.bus import bus, event
from tests.support.collector import Collector
from tests.support.hooks import HookServer
from tests.support.people import PASSWORD, Person, calling, person
from tests.support.pictures import png
from tests.support.receivers import Receiver, receiver
from tests.support.s3 import S3Server
from tests.support.stack import FAST, LIMIT, MODEL, until
from tests.support.valkey import Valkey
from websockets.asyncio.client import connect

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.db.base import Tx
from comfy_api_service.db.dispatch import Room
from comfy_api_service.domain.job import TERMINAL
from comfy_api_service.domain.tiers import TIERS
from comfy_api_service.services.held import Held
from comfy_api_service.services.throttle import LOGINS, LOGINS_OF_ADDRESS
from comfy_api_service.simulator import Simulator

JOBS: Final = "/api/v1/jobs"
WEBHOOKS: Final = "/api/v1/webhooks"
OF_FIRST: Final = {**SMALL, "model": MODEL}
"""The second backend does not have this model."""
SPARE: Final = replace(FAST, models={"checkpoints": ("spare.safetensors",)})
BLOCKED: Final = "forbidden words"
REWRITTEN: Final = "to be rewritten"
PARKED_LIMIT: Final = 20_000
"""Room for a few results: the store's absence is met in both ways."""


@dataclass(slots=True)
class Stage:
    """A service with accounts, limits, Redis, a bucket, rules for prompts and two backends; all may be broken."""

    service: Service
    client: Client
    who: Person
    sim: Simulator
    spare: Simulator
    redis: Valkey
    store: S3Server
    hook: HookServer
    traces: Collector
    pictures: str
    """A server that gives a picture."""

    async def submit(self, **fields: Any) -> str:
        answer = await self.client.post(JOBS, json={**OF_FIRST, **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    async def ended(self, job_id: str) -> None:
        account = self.who.user.account(TIERS)
        view = await self.service.services.watcher.wait(account, job_id, timeout=LIMIT)
        assert view.job.state in TERMINAL, f"still {view.job.state}"


Series = tuple[str, tuple[tuple[str, str], ...]]
Act = Callable[[Stage], AbstractAsyncContextManager[None]]


def series(name: str, **labels: str) -> Series:
    return name, tuple(sorted(labels.items()))


@dataclass(frozen=True, slots=True)
class Cause:
    act: Act
    moves: tuple[Series, ...]


CAUSES: list[Cause] = []


def moves(*figures: Series) -> Callable[[Callable[[Stage], AsyncIterator[None]]], Act]:
    """Enter a cause in the table, behind those before it."""

    def enter(act: Callable[[Stage], AsyncIterator[None]]) -> Act:
        made = asynccontextmanager(act)
        CAUSES.append(Cause(made, figures))
        return made

    return enter


STANDING: Final[tuple[Series, ...]] = (
    series("comfyui_build_info", version="*", role="serve"),
    series("comfyui_worker_leases"),
    series("comfyui_database_up"),
    series("comfyui_backend_up", backend="comfyui-1"),
    series("comfyui_backend_memory_bytes", backend="comfyui-1", kind="vram_total"),
    series("comfyui_backend_memory_bytes", backend="comfyui-1", kind="vram_free"),
    series("comfyui_backend_memory_bytes", backend="comfyui-1", kind="ram_total"),
    series("comfyui_backend_memory_bytes", backend="comfyui-1", kind="ram_free"),
    series("comfyui_redis_state", state="connected"),
    series("comfyui_redis_requests_total", use="ping", status="ok"),
    series("comfyui_redis_request_duration_seconds_count", use="ping"),
    series("python_info", implementation="*", major="*", minor="*", patchlevel="*", version="*"),
    series("process_start_time_seconds"),
    series("process_cpu_seconds_total"),
    series("process_virtual_memory_bytes"),
    series("process_resident_memory_bytes"),
    series("process_max_fds"),
)
"""Caused by a start: more than zero once the service runs."""
NEVER: Final = frozenset({"python_gc_objects_uncollectable_total"})
"""Of the interpreter; nothing that the service does makes it move."""


@moves(
    series("comfyui_jobs_created_total"),
    series("comfyui_jobs_total", status="succeeded"),
    series("comfyui_job_duration_seconds_count"),
    series("comfyui_job_wait_seconds_count"),
    series("comfyui_http_requests_total", method="POST", endpoint="/api/v1/generate", code="201"),
    series("comfyui_http_request_duration_seconds_count", method="POST", endpoint="/api/v1/generate"),
    series("comfyui_storage_uploads_total", status="ok"),
    series("comfyui_storage_upload_bytes_total"),
    series("comfyui_prompt_rules_total", outcome="allowed"),
    series("comfyui_prompt_hook_duration_seconds_count"),
    series("comfyui_redis_requests_total", use="publish", status="ok"),
    series("comfyui_redis_requests_total", use="buckets", status="ok"),
)
async def a_picture_is_made(stage: Stage) -> AsyncIterator[None]:
    answer = await stage.client.post("/api/v1/generate", json=OF_FIRST)
    assert answer.status_code == 201, answer.text
    yield


@moves(
    series("comfyui_backend_model_loads_total", backend="comfyui-1"),
    series("comfyui_backend_requests_total", backend="comfyui-1", status="ok"),
    series("comfyui_backend_request_duration_seconds_count", backend="comfyui-1"),
    series("comfyui_backend_busy_ratio", backend="comfyui-1"),
    series("comfyui_inputs_sent_total", backend="comfyui-1"),
)
async def the_first_backend_works(stage: Stage) -> AsyncIterator[None]:
    answer = await stage.client.post("/api/v1/upload", files={"file": png(7, size=(64, 64))})
    upload = answer.json()["upload_id"]
    for model in FAST.models["checkpoints"][:2]:
        await stage.ended(await stage.submit(model=model, image=upload, strength=0.5))
    yield


@moves(
    series("comfyui_queue_depth", tier="enterprise"),
    series("comfyui_queue_oldest_seconds"),
    series("comfyui_jobs_in_progress"),
    series("comfyui_jobs_total", status="canceled"),
)
async def more_is_asked_than_backends_can_do(stage: Stage) -> AsyncIterator[None]:
    stage.sim.faults.stall()
    jobs = [await stage.submit(seed=seed) for seed in range(6)]
    try:
        await stage.client.delete(f"{JOBS}/{jobs.pop()}")
        yield
    finally:
        stage.sim.faults.stall(on=False)
        for job in jobs:
            await stage.ended(job)


@moves(
    series("comfyui_jobs_total", status="failed"),
    series("comfyui_job_failures_total", reason="EXECUTION_FAILED"),
)
async def a_node_fails(stage: Stage) -> AsyncIterator[None]:
    stage.sim.faults.fail_node("KSampler", "no such luck")
    try:
        await stage.ended(await stage.submit(seed=77))
        yield
    finally:
        stage.sim.faults.heal()


@moves(series("comfyui_http_requests_in_progress"), series("comfyui_websocket_connections"))
async def callers_listen(stage: Stage) -> AsyncIterator[None]:
    async with (
        serving(stage.service.app) as url,
        connect(url.replace("http", "ws", 1) + "/ws/jobs", additional_headers=stage.who.headers),
    ):
        yield


@moves(series("comfyui_uploads_total", status="ok"), series("comfyui_upload_bytes_total"))
async def a_picture_is_uploaded(stage: Stage) -> AsyncIterator[None]:
    answer = await stage.client.post("/api/v1/upload", files={"file": png(3)})
    assert answer.status_code < 300, answer.text
    yield


@moves(series("comfyui_uploads_total", status="refused"))
async def no_picture_is_uploaded(stage: Stage) -> AsyncIterator[None]:
    answer = await stage.client.post("/api/v1/upload", files={"file": b"no picture"})
    assert answer.status_code in {415, 422}, answer.text
    yield


@moves(series("comfyui_input_fetches_total", outcome="ok"))
async def a_picture_is_fetched(stage: Stage) -> AsyncIterator[None]:
    await stage.submit(image=stage.pictures)
    yield


@moves(
    series("comfyui_input_fetches_total", outcome="failed"),
    series("comfyui_input_fetches_total", outcome="refused"),
)
async def pictures_cannot_be_fetched(stage: Stage) -> AsyncIterator[None]:
    for url in (stage.pictures + "/absent", "http://somebody@127.0.0.1/x.png"):
        answer = await stage.client.post(JOBS, json={**SMALL, "image": url})
        assert answer.status_code == 422, answer.text
    yield


GRAPH: Final[dict[str, Any]] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


@moves(
    series("comfyui_graphs_checked_total", outcome="accepted"),
    series("comfyui_graphs_checked_total", outcome="refused"),
)
async def graphs_are_checked(stage: Stage) -> AsyncIterator[None]:
    good = await stage.client.post(JOBS, json={"workflow": GRAPH})
    assert good.status_code == 202, good.text
    unknown = {**GRAPH, "1": {"class_type": "NoSuchNode", "inputs": {}}}
    assert (await stage.client.post(JOBS, json={"workflow": unknown})).status_code == 422
    yield


@moves(
    series("comfyui_prompt_rules_total", outcome="refused"),
    series("comfyui_prompt_rules_total", outcome="rewritten"),
    series("comfyui_prompt_rules_total", outcome="failed"),
)
async def prompts_meet_the_rules(stage: Stage) -> AsyncIterator[None]:
    assert (await stage.client.post(JOBS, json={**SMALL, "prompt": BLOCKED})).status_code == 422
    stage.hook.answers({"action": "rewrite", "texts": {"/prompt": "a harbour"}})
    await stage.client.post(JOBS, json={**SMALL, "prompt": REWRITTEN})
    stage.hook.answers("no answer")
    await stage.client.post(JOBS, json=SMALL)
    yield
    stage.hook.answers({"action": "allow"})


@moves(
    series("comfyui_requests_limited_total", limit="submissions"),
    series("comfyui_requests_limited_total", limit="images"),
    series("comfyui_requests_limited_total", limit="uploads"),
    series("comfyui_requests_limited_total", limit="reads"),
    series("comfyui_requests_limited_total", limit="waiting"),
)
async def an_account_meets_its_limits(stage: Stage) -> AsyncIterator[None]:
    limits: dict[str, Any] = {"submissions_per_minute": 3, "images_per_day": 4, "waiting": "none"}
    free = await person(stage.service, tier="free", overrides=limits)
    async with calling(stage.service, free) as client:
        await client.post(JOBS, json={**SMALL, "batch_size": 4})
        for _ in range(3):
            await client.post(JOBS, json=SMALL)
        for _ in range(999):
            if (await client.get(JOBS)).status_code == 429:
                break
        for _ in range(999):
            if (await client.post("/api/v1/upload", files={"file": b"x"})).status_code == 429:
                break
    crowded = await person(stage.service, overrides={"waiting": 0})
    async with calling(stage.service, crowded) as client:
        await client.post(JOBS, json=SMALL)
    yield


@moves(
    series("comfyui_credentials_refused_total"),
    series("comfyui_requests_limited_total", limit="strangers"),
)
async def strangers_knock(stage: Stage) -> AsyncIterator[None]:
    async with calling(stage.service) as client:
        for _ in range(999):
            if (await client.get(JOBS)).status_code == 429:
                break
    yield


@moves(
    series("comfyui_logins_total", outcome="ok"),
    series("comfyui_logins_total", outcome="refused"),
    series("comfyui_requests_limited_total", limit="login"),
    series("comfyui_requests_limited_total", limit="logins"),
)
async def people_log_in(stage: Stage) -> AsyncIterator[None]:
    eve = await person(stage.service, password=PASSWORD)
    login = "/api/v1/auth/login"
    async with calling(stage.service) as client:
        for password in (PASSWORD, "wrong password"):
            await client.post(login, json={"username": eve.user.username, "password": password})
        for name in ("nobody", *(f"nobody{number}" for number in range(LOGINS_OF_ADDRESS))):
            for _ in range(LOGINS + 1):
                answer = await client.post(login, json={"username": name, "password": "wrong password"})
                if answer.status_code == 429:
                    break
    yield


@moves(
    series("comfyui_redis_messages_total", outcome="received"),
    series("comfyui_redis_messages_total", outcome="ignored"),
)
async def another_process_speaks(stage: Stage) -> AsyncIterator[None]:
    async with bus(stage.redis.url) as other:
        other.signals.publish(event())
        for channel in stage.redis.command("PUBSUB", "CHANNELS"):
            stage.redis.command("PUBLISH", channel, "no signal")
        yield


@moves(series("comfyui_counter_drift_total"))
async def a_counter_is_wrong(stage: Stage) -> AsyncIterator[None]:
    account = stage.who.user.id

    async def spoil(tx: Tx) -> None:
        await tx.run("UPDATE lanes SET queued = queued + 5 WHERE account_id = :id", {"id": account})

    await stage.service.db.write(spoil)
    await stage.service.worker._upkeep.reconcile()
    yield


@moves(series("python_gc_collections_total", generation="2"))
async def memory_is_collected(_: Stage) -> AsyncIterator[None]:
    gc.collect()
    yield


@moves(series("python_gc_objects_collected_total", generation="2"))
async def rings_are_collected(_: Stage) -> AsyncIterator[None]:
    for _number in range(100):
        ring: list[Any] = []
        ring.append(ring)
        del ring
    gc.collect()
    yield


@moves(series("process_open_fds"))
async def files_are_opened(_: Stage) -> AsyncIterator[None]:
    ends = os.pipe()
    yield
    for end in ends:
        os.close(end)


@moves(series("comfyui_backend_suspected_total", backend="comfyui-1"))
async def a_backend_runs_nothing(stage: Stage) -> AsyncIterator[None]:
    stage.sim.faults.accept_and_run_nothing()
    jobs = [await stage.submit(seed=seed) for seed in (501, 502)]
    try:
        yield
    finally:
        stage.sim.faults.accept_and_run_nothing(on=False)
        for job in jobs:
            await stage.ended(job)


@moves(
    series("comfyui_storage_uploads_total", status="failed"),
    series("comfyui_uploads_total", status="failed"),
    series("comfyui_parked_results"),
    series("comfyui_parked_bytes"),
)
async def the_store_is_away(stage: Stage) -> AsyncIterator[None]:
    stage.store.kill()
    jobs = [await stage.submit(seed=seed) for seed in range(600, 612)]
    await stage.client.post("/api/v1/upload", files={"file": png(99)})
    yield
    delivered = stage.service.services.metrics.parked_ends.labels("delivered")
    before = delivered._value.get()
    stage.store.start()
    await until(lambda: delivered._value.get() > before)
    for job in jobs:
        await stage.ended(job)


@moves(series("comfyui_parked_ends_total", outcome="delivered"))
async def the_store_comes_back(stage: Stage) -> AsyncIterator[None]:
    async with the_store_is_away(stage):
        parked = stage.service.services.metrics.parked
        await until(lambda: parked._value.get() > 0)
    yield


@moves(
    series("comfyui_redis_state", state="disconnected"),
    series("comfyui_redis_fallbacks_total", use="buckets"),
    series("comfyui_redis_requests_total", use="buckets", status="skipped"),
)
async def redis_is_away(stage: Stage) -> AsyncIterator[None]:
    stage.redis.kill()
    metrics = stage.service.services.metrics
    await until(lambda: metrics.redis_state.labels("disconnected")._value.get() == 1)
    await stage.ended(await stage.submit(seed=700))
    yield
    stage.redis.start()
    await until(lambda: metrics.redis_state.labels("connected")._value.get() == 1)


@moves(
    series("comfyui_circuit_breaker_state", backend="comfyui-2"),
    series("comfyui_backend_requests_total", backend="comfyui-2", status="unreachable"),
    series("comfyui_backend_up", backend="comfyui-2"),
)
async def a_backend_dies(stage: Stage) -> AsyncIterator[None]:
    await stage.spare.faults.die()
    yield
    await stage.spare.faults.restart()


@moves(series("comfyui_webhook_waiting"), series("comfyui_webhook_oldest_seconds"))
async def nobody_has_time_to_deliver(stage: Stage) -> AsyncIterator[None]:
    async with receiver() as there, _webhook(stage, there) as path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Held, "room", lambda _: Room(0, 0, 0, {}, ()))
            await stage.client.post(f"{path}/test")
            yield


@moves(
    series("comfyui_webhook_deliveries_total", status="delivered"),
    series("comfyui_webhook_deliveries_total", status="retried"),
    series("comfyui_webhook_deliveries_total", status="failed"),
    series("comfyui_webhook_delivery_duration_seconds_count"),
    series("comfyui_webhook_delay_seconds_count"),
)
async def receivers_answer_in_three_ways(stage: Stage) -> AsyncIterator[None]:
    async with receiver() as there:
        for status in (200, 503, 410):
            there.answers(status)
            async with _webhook(stage, there):
                came = len(there.came)
                await stage.ended(await stage.submit(seed=status))
                await there.until(came + 1)
        yield


@asynccontextmanager
async def _webhook(stage: Stage, there: Receiver) -> AsyncIterator[str]:
    """The path of a webhook at this receiver."""
    answer = await stage.client.post(WEBHOOKS, json={"url": there.url, "events": ["job.succeeded"]})
    assert answer.status_code == 201, answer.text
    path = f"{WEBHOOKS}/{answer.json()['webhook_id']}"
    yield path
    await stage.client.delete(path)


@moves(
    series("comfyui_trace_spans_total", outcome="recorded"),
    series("comfyui_trace_spans_total", outcome="sent"),
    series("comfyui_trace_spans_total", outcome="lost"),
)
async def spans_are_sent_and_lost(stage: Stage) -> AsyncIterator[None]:
    taken = len(stage.traces.spans)
    await stage.ended(await stage.submit(seed=800))
    await asyncio.to_thread(stage.traces.until, lambda found: len(found.spans) > taken)
    stage.traces.refuse()
    await stage.ended(await stage.submit(seed=801))
    yield


@moves(series("comfyui_worker_replaced_total"))
async def the_worker_is_taken_for_dead(stage: Stage) -> AsyncIterator[None]:
    stage.service.worker._replaced.set()
    yield

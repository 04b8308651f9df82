"""Fifty listeners on one job, half of them slow, some coming back: everybody hears the end."""

import asyncio
import json
import time
from pathlib import Path

import httpx2
import websockets
from tests.e2e.test_survival import submit, until_status
from tests.support.processes import client, serve, simulator, until_online

LIMIT = 60.0


async def by_sse(url: str, job_id: str, *, pause: float, leave_after: int | None) -> tuple[str, float]:
    """Read events, slowly if asked; leave once and come back with the last id. Last event and when it came."""
    last_id: str | None = None
    left = False
    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT, trust_env=False) as http:
        while True:
            headers: dict[str, str] = {} if last_id is None else {"Last-Event-ID": last_id}
            async with http.stream("GET", f"/api/v1/jobs/{job_id}/events", headers=headers) as stream:
                read = 0
                async for line in stream.aiter_lines():
                    if line.startswith("id:"):
                        last_id = line.removeprefix("id:").strip()
                    if not line.startswith("data:"):
                        continue
                    event = json.loads(line.removeprefix("data:"))
                    if event["type"] == "done":
                        return event["status"], time.monotonic()
                    read += 1
                    if leave_after is not None and not left and read >= leave_after:
                        left = True
                        break
                    await asyncio.sleep(pause)


async def by_websocket(url: str, job_id: str, *, pause: float) -> tuple[str, float]:
    address = f"{url.replace('http', 'ws', 1)}/ws/jobs/{job_id}"
    async with websockets.connect(address, proxy=None) as socket:
        async for frame in socket:
            if isinstance(frame, str):
                event = json.loads(frame)
                if event["type"] == "done":
                    return event["status"], time.monotonic()
            await asyncio.sleep(pause)
    return "closed without an end", time.monotonic()


def test_fifty_listeners_all_hear_the_end_and_slow_ones_delay_nobody(tmp_path: Path) -> None:
    with (
        simulator(tmp_path, "--seconds-per-step", "0.1", "--seconds-per-load", "0") as sim,
        serve(tmp_path, sim.url) as service,
        client(service) as api,
    ):
        until_online(api)
        job_id = submit(api, 1)
        until_status(api, job_id, "running")

        async def everybody() -> list[tuple[str, float]]:
            return await asyncio.gather(
                *(
                    by_sse(service.url, job_id, pause=0.5 * (n % 2), leave_after=2 if n % 5 == 0 else None)
                    for n in range(25)
                ),
                *(by_websocket(service.url, job_id, pause=0.5 * (n % 2)) for n in range(25)),
            )

        told = asyncio.run(asyncio.wait_for(everybody(), LIMIT))
    assert [status for status, _ in told] == ["succeeded"] * 50
    ends = [at for _, at in told]
    first = min(ends)
    quick = [at for n, at in enumerate(ends) if n % 25 % 2 == 0]
    assert len(quick) == 26
    assert max(quick) - first < 5, "a listener that reads at once waited for slow ones"

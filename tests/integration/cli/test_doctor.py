"""The doctor's questions to servers that are as they should be, and to others."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from comfy_api_service.cli.doctor import backends, checks
from comfy_api_service.cli.doctor.backends import Probe, Reach, probe_all
from comfy_api_service.cli.doctor.finding import Level
from comfy_api_service.settings import Settings
from comfy_api_service.simulator import DEFAULT_MODELS, Simulator, SimulatorSettings


async def asked(url: str, seconds: float = 5.0) -> Probe:
    (found,) = await probe_all((url,), seconds=seconds)
    return found


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("protocol", ["0.3.64", "0.8.0"])
async def test_a_comfyui_as_it_should_be(protocol: str) -> None:
    async with Simulator(SimulatorSettings(protocol=protocol)) as simulator:  # type: ignore[arg-type]
        probe = await asked(simulator.url)
    found, models = backends.reachable(probe), backends.models(probe)
    assert models is not None
    assert (found.status, models.status) == (Level.OK, Level.OK)
    assert protocol in found.message
    assert "4 checkpoints" in models.message


async def test_no_checkpoint() -> None:
    without = {**DEFAULT_MODELS, "checkpoints": (), "diffusion_models": ()}
    async with Simulator(SimulatorSettings(models=without)) as simulator:
        found = backends.models(await asked(simulator.url))
    assert found is not None
    assert found.status is Level.FAULT
    assert "no checkpoint" in found.message


async def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = await asked(f"http://127.0.0.1:{port}")
    assert found.reach is Reach.REFUSED
    remedy = backends.reachable(found).remedy
    assert "`python main.py --listen 127.0.0.1`" in remedy, "without an address it would listen to everybody"


async def test_an_unknown_host() -> None:
    found = await asked("http://no-such-host.invalid:8188")
    assert found.reach is Reach.UNKNOWN_HOST


async def test_a_web_server_on_the_wrong_port() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<h1>hello</h1>", content_type="text/html")

    async with serving(web.get("/{any:.*}", page)) as url:
        assert (await asked(url)).reach is Reach.OTHER
    async with serving() as url:
        assert (await asked(url)).reach is Reach.OTHER


async def test_something_that_does_not_speak_http() -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await asked(f"http://127.0.0.1:{port}")).reach is Reach.OTHER


async def test_an_old_version() -> None:
    async def stats(_: web.Request) -> web.Response:
        return web.json_response({"system": {"comfyui_version": "0.3.10"}, "devices": []})

    async with serving(web.get("/system_stats", stats)) as url:
        found = backends.reachable(await asked(url))
    assert found.status is Level.FAULT
    assert "0.3.10 is too old" in found.message


async def test_a_server_that_hangs() -> None:
    async with Simulator(SimulatorSettings()) as simulator:
        simulator.faults.hang()
        assert (await asked(simulator.url, 0.3)).reach is Reach.SILENT
        simulator.faults.resume()


async def test_what_answers_on_the_port_may_be_this_service() -> None:
    def named(name: str) -> web.RouteDef:
        async def root(_: web.Request) -> web.Response:
            return web.json_response({"name": name})

        return web.get("/", root)

    settings = Settings(_env_file=None)
    for name, ours in (("comfy-api-service", True), ("another", False)):
        async with serving(named(name)) as url:
            port = int(url.rpartition(":")[2])
            assert (
                await asyncio.to_thread(checks.is_this_service, "127.0.0.1", port, settings=settings) is ours
            )


async def test_comfyui_may_be_left_out(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, comfyui_url=("http://127.0.0.1:9",))
    every = await checks.of_settings(settings)
    some = await checks.of_settings(settings, comfyui=False)
    assert [one.subject for one in every if one not in some] == ["ComfyUI http://127.0.0.1:9"]
    assert [one for one in some if one not in every] == []

"""Against the simulator, as both versions: one run from submission to file, and the ways it can break."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import aiohttp
import pytest

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import (
    BadAnswer,
    DuplicatePrompt,
    NoAnswer,
    OutputMissing,
    PromptRefused,
    Truncated,
    Unreachable,
    job_error,
)
from comfy_api_service.comfyui.messages import (
    Failed,
    FileRef,
    Idle,
    Interrupted,
    Message,
    Output,
    PreviewFrame,
    Started,
    Stepped,
    Succeeded,
)
from comfy_api_service.comfyui.socket import Session
from comfy_api_service.comfyui.transport import open_http
from comfy_api_service.comfyui.views import Outcome
from comfy_api_service.domain.errors import Code
from comfy_api_service.simulator import Simulator, SimulatorSettings

Version = Literal["0.3.64", "0.8.0"]
CHECKPOINT = "v1-5-pruned-emaonly.safetensors"


def graph(*, seed: int = 1, steps: int = 4, checkpoint: str = CHECKPOINT) -> dict[str, Any]:
    def node(class_type: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": class_type, "inputs": inputs}

    return {
        "4": node("CheckpointLoaderSimple", ckpt_name=checkpoint),
        "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "6": node("CLIPTextEncode", text="a cat", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="", clip=["4", 1]),
        "3": node(
            "KSampler",
            seed=seed,
            steps=steps,
            cfg=7.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", images=["8", 0], filename_prefix=f"cui/job_1/{seed}/out"),
    }


class Run:
    """A simulator, a client, a session, and all that it told."""

    def __init__(self, simulator: Simulator, http: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.client = ComfyClient(simulator.url, http, read_timeout=2.0)
        self.told: list[Message] = []
        self._news = asyncio.Event()
        self.session = Session(
            self.client,
            backend="simulator",
            client_id=uuid.uuid4().hex,
            on_message=self._hear,
            on_link=self._linked,
        )

    def _hear(self, message: Message) -> None:
        self.told.append(message)
        self._news.set()

    def _linked(self, _up: bool) -> None:
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(20):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            shown = [type(message).__name__ for message in self.told]
            pytest.fail(f"not told in time; link {self.session.link}, told {shown}")

    async def submit(self, wanted: dict[str, Any]) -> str:
        prompt_id = str(uuid.uuid4())
        await self.client.submit(prompt_id=prompt_id, client_id=self.session.client_id, graph=wanted)
        return prompt_id

    async def file(self, ref: FileRef) -> bytes:
        async with self.client.view(ref) as stream:
            return b"".join([chunk async for chunk in stream.chunks()])

    async def outcome(self, prompt_id: str) -> Any:
        async with asyncio.timeout(20):
            while (entry := await self.client.history(prompt_id)) is None:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.01)
        return entry


@contextlib.asynccontextmanager
async def run_against(settings: SimulatorSettings) -> AsyncIterator[Run]:
    async with Simulator(settings) as simulator, open_http() as http:
        run = Run(simulator, http)
        task = asyncio.create_task(run.session.run())
        try:
            await run.until(lambda: run.session.connected)
            yield run
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture(params=["0.3.64", "0.8.0"])
async def run(request: pytest.FixtureRequest) -> AsyncIterator[Run]:
    version: Version = request.param
    settings = SimulatorSettings(
        protocol=version, seconds_per_step=0.01, seconds_per_load=0.01, cleanup_seconds=0.0
    )
    async with run_against(settings) as made:
        yield made


async def test_a_run_from_submission_to_file(run: Run) -> None:
    prompt_id = await run.submit(graph())
    await run.until(lambda: Succeeded(prompt_id) in run.told)
    outputs = [m for m in run.told if isinstance(m, Output)]
    assert [(o.prompt_id, o.node, len(o.files)) for o in outputs] == [(prompt_id, "9", 1)]
    assert any(isinstance(m, Started) and m.prompt_id == prompt_id for m in run.told)
    assert Stepped(prompt_id, "3", 4, 4) in run.told
    previews = [m for m in run.told if isinstance(m, PreviewFrame)]
    assert previews
    assert all(p.prompt_id == prompt_id and p.picture[:2] == b"\xff\xd8" for p in previews)
    picture = await run.file(outputs[0].files[0])
    assert picture.startswith(b"\x89PNG")
    entry = await run.outcome(prompt_id)
    assert entry.outcome is Outcome.SUCCESS
    assert entry.outputs["9"].files == outputs[0].files
    assert entry.promised == ("9",)
    await run.until(lambda: Idle(prompt_id) in run.told)
    assert len(await run.client.queue()) == 0


async def test_only_the_named_prompt_is_stopped(run: Run) -> None:
    first = await run.submit(graph(seed=1, steps=1000))
    second = await run.submit(graph(seed=2, steps=1000))
    await run.until(lambda: any(isinstance(m, Stepped) for m in run.told))
    assert {i.prompt_id for i in (await run.client.queue()).running} == {first}
    await run.client.interrupt(second)
    await run.client.delete_pending([first])
    assert [i.prompt_id for i in (await run.client.queue()).running] == [first]
    await run.client.delete_pending([second])
    assert len(await run.client.queue()) == 1
    await run.client.interrupt(first)
    await run.until(lambda: any(isinstance(m, Interrupted) and m.prompt_id == first for m in run.told))
    entry = await run.outcome(first)
    assert (entry.outcome, entry.interrupted_at) == (Outcome.INTERRUPTED, "3")
    assert await run.client.history(second) is None
    assert not await run.client.cancel(second)


async def test_newer_servers_cancel_in_one_step_and_refuse_duplicates() -> None:
    settings = SimulatorSettings(newer=True, seconds_per_step=0.01, seconds_per_load=0.0)
    async with run_against(settings) as run:
        first = await run.submit(graph(steps=1000))
        await run.until(lambda: any(isinstance(m, Stepped) for m in run.told))
        with pytest.raises(DuplicatePrompt):
            await run.client.submit(prompt_id=first, client_id=run.session.client_id, graph=graph())
        assert await run.client.cancel(first)
        assert (await run.outcome(first)).outcome is Outcome.INTERRUPTED
        assert await run.client.cancel(str(uuid.uuid4()))


async def test_refusals_and_failures_have_their_codes(run: Run) -> None:
    with pytest.raises(PromptRefused) as caught:
        await run.submit(graph(checkpoint="absent.safetensors"))
    assert job_error(caught.value).code is Code.MODEL_NOT_FOUND
    with pytest.raises(PromptRefused) as caught:
        await run.submit({"1": {"class_type": "NoSuchNode", "inputs": {}}})
    assert job_error(caught.value).code is Code.NODE_NOT_AVAILABLE
    run.simulator.faults.out_of_memory()
    prompt_id = await run.submit(graph(seed=5))
    await run.until(lambda: any(isinstance(m, Failed) for m in run.told))
    entry = await run.outcome(prompt_id)
    assert entry.error in run.told
    assert job_error(entry.error).code is Code.OUT_OF_MEMORY


async def test_what_the_server_is(run: Run) -> None:
    stats = await run.client.system_stats()
    assert stats.version == run.simulator.settings.protocol
    assert stats.devices[0].vram_total == run.simulator.settings.vram_total
    assert "KSampler" in await run.client.object_info()
    await run.client.free()


async def test_an_upload_can_be_fetched_again(run: Run) -> None:
    ref = await run.client.upload_image("in.png", b"picture", subfolder="cui")
    assert ref == await run.client.upload_image("in.png", b"picture", subfolder="cui")
    assert ref != await run.client.upload_image("in.png", b"other", subfolder="cui")
    assert await run.file(ref) == b"picture"


async def test_an_accepted_prompt_whose_answer_was_lost_is_there(run: Run) -> None:
    run.simulator.faults.drop_answer_after_accepting()
    prompt_id = str(uuid.uuid4())
    with pytest.raises(NoAnswer):
        await run.client.submit(prompt_id=prompt_id, client_id=run.session.client_id, graph=graph())
    assert (await run.outcome(prompt_id)).outcome is Outcome.SUCCESS


async def test_half_answers_and_missing_files_are_named(run: Run) -> None:
    prompt_id = await run.submit(graph())
    (ref,) = (await run.outcome(prompt_id)).outputs["9"].files
    run.simulator.faults.halve_responses(path="/view")
    with pytest.raises(Truncated):
        await run.file(ref)
    run.simulator.faults.halve_responses(path="/queue")
    with pytest.raises(BadAnswer):
        await run.client.queue()
    run.simulator.faults.answer_errors()
    with pytest.raises(BadAnswer):
        await run.client.queue()
    await run.simulator.faults.delete_outputs()
    with pytest.raises(OutputMissing):
        await run.file(ref)


async def test_a_cut_socket_comes_back_and_hears_the_same_run(run: Run) -> None:
    prompt_id = await run.submit(graph(steps=200))
    await run.until(lambda: any(isinstance(m, Stepped) for m in run.told))
    run.simulator.faults.close_sockets()
    await run.until(lambda: run.session.link == 2)
    await run.until(lambda: Succeeded(prompt_id) in run.told)


async def test_a_dead_server_is_unreachable_and_found_again(run: Run) -> None:
    prompt_id = await run.submit(graph(steps=1000))
    await run.simulator.faults.die()
    await run.until(lambda: not run.session.connected)
    with pytest.raises(Unreachable):
        await run.client.queue()
    await run.simulator.faults.restart()
    await run.until(lambda: run.session.link == 2)
    assert prompt_id not in await run.client.queue()
    assert await run.client.history(prompt_id) is None

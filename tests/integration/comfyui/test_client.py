"""What is asked of a server, word by word, and what its answers mean."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import (
    BadAnswer,
    DuplicatePrompt,
    OutputInvalid,
    OutputMissing,
    PromptRefused,
)
from comfy_api_service.comfyui.messages import FileRef

PROMPT = "8ea8b101-f281-4e46-a911-7eba285a5539"
GRAPH = {
    "2": {"class_type": "SaveImage", "inputs": {"seed": 2**64 - 1}},
    "1": {"class_type": "X", "inputs": {}},
}
Connect = Callable[[str], ComfyClient]
Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]
Observed = list[tuple[str, str]]
Asked = list[tuple[str, str, Any]]


@pytest.fixture
async def scripted(connect: Connect, serve: Serve) -> Callable[..., Awaitable[tuple[ComfyClient, Asked]]]:
    """A server with given answers by path, and what it was asked."""

    async def start(**answers: web.Response | Any) -> tuple[ComfyClient, Asked]:
        asked: Asked = []

        async def handle(request: web.Request) -> web.StreamResponse:
            raw = await request.text()
            asked.append((request.method, request.path_qs, json.loads(raw) if raw else None))
            found = answers.get(request.path.strip("/").split("/")[0], {})
            if isinstance(found, tuple):
                status, content = found
                return (
                    web.json_response(content, status=status)
                    if content is not None
                    else web.Response(status=status)
                )
            return web.json_response(found)

        return connect(await serve(handle)), asked

    return start


async def submit(client: ComfyClient) -> int:
    return await client.submit(prompt_id=PROMPT, client_id="c", graph=GRAPH)


async def test_a_prompt_is_sent_with_both_ids_and_nothing_that_reorders(scripted: Any) -> None:
    client, asked = await scripted(prompt={"prompt_id": PROMPT, "number": 7, "node_errors": {}})
    assert await submit(client) == 7
    sent = {"prompt": GRAPH, "client_id": "c", "prompt_id": PROMPT, "extra_data": {}}
    assert asked == [("POST", "/prompt", sent)]
    assert list(asked[0][2]["prompt"]) == ["2", "1"]


async def test_a_graph_that_is_written_already_is_sent_as_it_is(scripted: Any) -> None:
    client, asked = await scripted(prompt={"prompt_id": PROMPT, "number": 7, "node_errors": {}})
    await client.submit(prompt_id=PROMPT, client_id="c", body=b'{"1": {"class_type": "Y", "inputs": {}}}')
    assert asked[0][2]["prompt"] == {"1": {"class_type": "Y", "inputs": {}}}
    assert asked[0][2]["prompt_id"] == PROMPT


async def test_integers_of_any_size_are_sent(scripted: Any) -> None:
    client, asked = await scripted(prompt={"prompt_id": PROMPT, "number": 7, "node_errors": {}})
    graph = {"1": {"class_type": "X", "inputs": {"n": 2**80}}}
    await client.submit(prompt_id=PROMPT, client_id="c", graph=graph)
    assert asked[0][2]["prompt"] == graph


@pytest.mark.parametrize(
    ("prompt_id", "client_id", "graph"), [("", "c", {}), (PROMPT, "", {}), (PROMPT, "c", None)]
)
async def test_a_prompt_without_its_ids_or_graph_is_not_sent(
    scripted: Any, prompt_id: str, client_id: str, graph: Any
) -> None:
    client, asked = await scripted()
    with pytest.raises(ValueError, match="prompt needs"):
        await client.submit(prompt_id=prompt_id, client_id=client_id, graph=graph)
    assert asked == []


async def test_a_refusal_is_told(scripted: Any) -> None:
    body = {"error": {"type": "prompt_no_outputs", "message": "Prompt has no outputs"}, "node_errors": {}}
    client, _ = await scripted(prompt=(400, body))
    with pytest.raises(PromptRefused) as caught:
        await submit(client)
    assert (caught.value.error_type, caught.value.partly) == ("prompt_no_outputs", False)


async def test_a_partly_accepted_prompt_is_refused_and_says_that_it_is_there(scripted: Any) -> None:
    errors = {"5": {"errors": [{"type": "custom_validation_failed"}], "class_type": "LoadImage"}}
    client, _ = await scripted(prompt={"prompt_id": PROMPT, "number": 7, "node_errors": errors})
    with pytest.raises(PromptRefused) as caught:
        await submit(client)
    assert caught.value.partly
    assert caught.value.node_errors[0].node_id == "5"


async def test_a_duplicate_is_told(scripted: Any) -> None:
    client, _ = await scripted(prompt=(409, {"error": "exists"}))
    with pytest.raises(DuplicatePrompt):
        await submit(client)


async def test_a_graph_too_large_is_a_refusal(scripted: Any) -> None:
    client, _ = await scripted(prompt=(413, None))
    with pytest.raises(PromptRefused) as caught:
        await submit(client)
    assert caught.value.error_type == "request_too_large"


@pytest.mark.parametrize(
    "answer",
    [
        {"prompt_id": "other", "number": 7, "node_errors": {}},
        {"prompt_id": PROMPT, "number": None, "node_errors": {}},
        {"prompt_id": PROMPT, "number": "7", "node_errors": {}},
        (400, None),
        (400, ["x"]),
        (401, {}),
        (201, {"prompt_id": PROMPT, "number": 7}),
    ],
)
async def test_answers_that_prove_nothing_are_bad(scripted: Any, answer: Any) -> None:
    client, _ = await scripted(prompt=answer)
    with pytest.raises(BadAnswer):
        await submit(client)


async def test_an_interrupt_always_names_its_prompt(scripted: Any) -> None:
    client, asked = await scripted(interrupt=(200, None))
    await client.interrupt(PROMPT)
    assert asked == [("POST", "/interrupt", {"prompt_id": PROMPT})]


@pytest.mark.parametrize("bad", ["", " ", "a/b", "../x", "a?b", "x" * 65, "-", None, 0])
async def test_nothing_is_stopped_or_asked_without_an_id(scripted: Any, bad: Any) -> None:
    client, asked = await scripted()
    for ask in (client.interrupt(bad), client.cancel(bad), client.history(bad), client.delete_pending([bad])):
        with pytest.raises(ValueError, match="prompt id"):
            await ask
    assert asked == []


async def test_deleting_names_each_prompt(scripted: Any) -> None:
    client, asked = await scripted(queue=(200, None))
    await client.delete_pending([PROMPT, "b"])
    await client.delete_pending([])
    assert asked == [("POST", "/queue", {"delete": [PROMPT, "b"]})]


async def test_cancel_is_atomic_where_the_server_can(scripted: Any) -> None:
    client, asked = await scripted(api={"cancelled": False})
    assert await client.cancel(PROMPT)
    assert await client.cancel(PROMPT)
    assert asked == [("POST", f"/api/jobs/{PROMPT}/cancel", None)] * 2


@pytest.mark.parametrize("status", [404, 405])
async def test_cancel_remembers_that_the_server_cannot(scripted: Any, status: int) -> None:
    client, asked = await scripted(api=(status, None), system_stats={"system": {}, "devices": []})
    assert not await client.cancel(PROMPT)
    assert not await client.cancel(PROMPT)
    assert len(asked) == 1
    await client.system_stats()
    assert not await client.cancel(PROMPT)
    assert len(asked) == 3, "asked again once the server's version changed"


async def test_questions_and_their_routes(scripted: Any, observed: Observed) -> None:
    client, asked = await scripted(
        queue={"queue_running": [[3, PROMPT, {}, {"client_id": "c"}, ["9"]]], "queue_pending": []},
        history={},
        object_info={"X": {}},
        system_stats={"system": {"comfyui_version": "0.8.0"}, "devices": [{"name": "cpu"}]},
        free=(200, None),
    )
    assert PROMPT in await client.queue()
    assert await client.history(PROMPT) is None
    assert await client.object_info() == {"X": {}}
    assert (await client.system_stats()).version == "0.8.0"
    await client.free(free_memory=False)
    assert asked[1][:2] == ("GET", f"/history/{PROMPT}")
    assert asked[-1] == ("POST", "/free", {"unload_models": True, "free_memory": False})
    routes = ["/queue", "/history/{id}", "/object_info", "/system_stats", "/free"]
    assert observed == [(route, "200") for route in routes]


async def test_a_base_with_a_path_is_kept(connect: Connect, serve: Serve) -> None:
    paths: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response()

    await connect(await serve(handle) + "/gpu1/").free()
    assert paths == ["/gpu1/free"]


# --- files


async def test_a_file_comes_whole(connect: Connect, serve: Serve, observed: Observed) -> None:
    content = bytes(range(256)) * 4096
    asked: list[dict[str, str]] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(dict(request.query))
        return web.Response(body=content, content_type="image/png")

    client = connect(await serve(handle))
    ref = FileRef("a b&c.png", "x/y", "temp")
    async with client.view(ref) as stream:
        assert (stream.length, stream.media_type) == (len(content), "image/png")
        assert b"".join([chunk async for chunk in stream.chunks()]) == content
    assert asked == [{"filename": "a b&c.png", "subfolder": "x/y", "type": "temp"}]
    assert observed == [("/view", "200")]


@pytest.mark.parametrize(
    ("status", "error"), [(404, OutputMissing), (400, BadAnswer), (500, BadAnswer), (302, BadAnswer)]
)
async def test_a_file_that_is_not_given(
    scripted: Any, observed: Observed, status: int, error: type[Exception]
) -> None:
    client, _ = await scripted(view=(status, None))
    with pytest.raises(error):
        async with client.view(FileRef("a.png", "", "output")):
            pytest.fail("there is no file")
    assert observed == [("/view", str(status))]


async def test_no_request_is_made_for_a_reference_that_leads_out(scripted: Any) -> None:
    client, asked = await scripted()
    with pytest.raises(OutputInvalid):
        async with client.view(FileRef("a.png", "../../etc", "output")):
            pytest.fail("there is no file")
    assert asked == []


async def test_what_the_reader_raises_passes_unchanged(connect: Connect, serve: Serve) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 10_000_000)

    async def read(client: ComfyClient) -> None:
        async with client.view(FileRef("a.png", "", "output")) as stream:
            async for _ in stream.chunks():
                raise OSError("disk full")

    client = connect(await serve(handle))
    with pytest.raises(OSError, match="disk full"):
        await read(client)


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_upload_is_stored_under_the_name_that_the_server_says(
    connect: Connect, serve: Serve, streamed: bool
) -> None:
    fields: dict[str, Any] = {}

    async def handle(request: web.Request) -> web.Response:
        form = await request.post()
        image = form["image"]
        assert isinstance(image, web.FileField)
        fields.update(form, image=(image.filename, image.file.read()))
        return web.json_response({"name": "in (1).png", "subfolder": "cui", "type": "input"})

    async def pieces() -> AsyncIterator[bytes]:
        yield b"pic"
        yield b"ture"

    client = connect(await serve(handle))
    data = pieces() if streamed else b"picture"
    ref = await client.upload_image("in.png", data, subfolder="cui")
    assert ref == FileRef("in (1).png", "cui", "input")
    assert fields == {"image": ("in.png", b"picture"), "subfolder": "cui", "type": "input"}


@pytest.mark.parametrize(
    "answer",
    [
        {"name": "../x", "subfolder": "", "type": "input"},
        {"name": "x", "subfolder": "", "type": "output"},
        {},
        [],
        (400, None),
    ],
)
async def test_an_upload_that_went_elsewhere_is_none(connect: Connect, serve: Serve, answer: Any) -> None:
    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=answer[0]) if isinstance(answer, tuple) else web.json_response(answer)

    client = connect(await serve(handle))
    with pytest.raises(BadAnswer):
        await client.upload_image("in.png", b"x")


@pytest.mark.parametrize(("name", "subfolder"), [("../x", ""), ("", ""), ("x", "../y"), ("a/b", "")])
async def test_an_upload_has_a_plain_name(scripted: Any, name: str, subfolder: str) -> None:
    client, asked = await scripted()
    with pytest.raises(ValueError, match="plain file name"):
        await client.upload_image(name, b"x", subfolder=subfolder)
    assert asked == []

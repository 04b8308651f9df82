"""What a caller may name as an input: uploads, data URLs, results, https URLs; and what is said of the rest."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.api import connected
from tests.support.people import AUTH, Person, person
from tests.support.pictures import jpeg, png
from tests.support.sites import site
from tests.support.stack import FAST, ended, online, order, running, submit

from comfy_api_service.bootstrap.api import Service
from comfy_api_service.domain.account import LOCAL, Account
from comfy_api_service.domain.errors import Code, Refused, ServiceError
from comfy_api_service.domain.job import State
from comfy_api_service.services.inputs import NO_RESULT, NO_UPLOAD, InputsRefused
from comfy_api_service.simulator import Simulator


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


@pytest.fixture
async def service(tmp_path: Path, sim: Simulator) -> AsyncIterator[Service]:
    async with running(tmp_path, sim.url, input_urls_allow_private=True) as service:
        await online(service)
        yield service


async def faults(service: Service, account: Account, *references: str) -> dict[str, str]:
    with pytest.raises(InputsRefused) as raised:
        await service.services.inputs.resolve(account, references)
    assert raised.value.code is Code.INVALID_INPUT
    assert [one["message"] for one in raised.value.details["errors"]] == list(raised.value.faults.values())
    return dict(raised.value.faults)


async def test_each_kind_of_reference_becomes_an_upload_of_the_callers(service: Service) -> None:
    done = await ended(service, (await submit(service, order(batch_size=2))).job_id)
    assert done.state is State.SUCCEEDED
    async with connected(service.app) as client, site() as server:
        upload = (await client.post("/api/v1/upload", files={"file": jpeg()})).json()["upload_id"]
        url = f"http://127.0.0.1:{server.port}/picture"
        references = [upload, data_url(png(2)), done.id, f"{done.id}/1", url, upload]
        found = await service.services.inputs.resolve(LOCAL, references)
    assert found.keys() == set(references)
    assert found[upload].id == upload
    assert found[done.id].sha256 != found[f"{done.id}/1"].sha256
    assert {one.account_id for one in found.values()} == {LOCAL.id}
    again = await service.services.inputs.resolve(LOCAL, [data_url(png(2))])
    assert again[data_url(png(2))].id == found[data_url(png(2))].id


async def test_every_fault_is_told_at_once_and_by_its_place(service: Service) -> None:
    waiting = (await submit(service, order(model=None, steps=150))).job_id
    await service.services.jobs.cancel(LOCAL, waiting)
    references = [
        "upl_00000000000000000000000000",
        "upl_x",
        "job_00000000000000000000000000",
        "job_x/9",
        waiting,
        "data:text/html,<b>",
        "data:image/png;base64,%%%",
        data_url(b"<svg/>"),
        data_url(png()[:-9]),
        "picture.png",
        "../../etc/passwd",
        "ftp://example.com/a.png",
        "https://127.0.0.1:1/a.png?token=secret",
        "https://someone:secret@127.0.0.1/a.png#secret",
        "https://someone:sec/ret@127.0.0.1/a.png",
        "https://someone:secret?x@127.0.0.1/a.png",
    ]
    found = await faults(service, LOCAL, *references)
    assert list(found) == references
    assert found[references[0]] == found[references[1]] == NO_UPLOAD
    assert found[references[2]] == found[references[3]] == NO_RESULT
    with pytest.raises(InputsRefused) as raised:
        await service.services.inputs.resolve(LOCAL, references)
    told = str(raised.value.details)
    assert not [word for word in ("someone", "secret", "sec/", "token") if word in told]
    assert told.count("'https://127.0.0.1/a.png'") == 2
    assert "%%%" not in told
    assert base64.b64encode(png()[:-9]).decode() not in told


async def test_a_message_names_no_host_and_an_upload_by_its_id(service: Service) -> None:
    for reference, name in (("https://u:secret@127.0.0.1/a.png", "An input"), ("upl_x", "upl_x")):
        with pytest.raises(InputsRefused) as raised:
            await service.services.inputs.resolve(LOCAL, [reference])
        [why] = raised.value.faults.values()
        assert raised.value.message == f"{name}: {why}"


async def test_no_more_files_than_a_job_may_name(service: Service) -> None:
    with pytest.raises(Refused):
        await service.services.inputs.resolve(LOCAL, [f"upl_{n}" for n in range(65)])


async def test_addresses_inside_are_refused_where_they_are_not_allowed(
    tmp_path: Path, sim: Simulator
) -> None:
    async with running(tmp_path, sim.url) as service, site() as server:
        url = f"http://127.0.0.1:{server.port}/picture"
        found = await faults(service, LOCAL, url, "https://127.0.0.1/x", "https://localhost/x")
        assert len(found) == 3
        assert server.asked == []


async def test_urls_are_fetched_at_once(service: Service) -> None:
    async with site() as server:
        server.wanted_at_once = 8
        urls = [f"http://127.0.0.1:{server.port}/together?{n}" for n in range(8)]
        found = await service.services.inputs.resolve(LOCAL, urls)
        assert len({one.id for one in found.values()}) == 1


async def test_what_is_somebody_elses_is_not_there(tmp_path: Path) -> None:
    async with Simulator(FAST) as sim, running(tmp_path, sim.url, **AUTH) as service:
        await online(service)
        owner, other = await person(service, password=None), await person(service, password=None)
        upload, job_id = await _things(service, owner)
        mine, theirs = [await _account(service, one) for one in (owner, other)]
        assert len(await service.services.inputs.resolve(mine, [upload, job_id])) == 2
        absent = ["upl_00000000000000000000000000", "job_00000000000000000000000000"]
        found = await faults(service, theirs, upload, job_id, *absent)
        assert [found[upload], found[job_id]] == [found[one] for one in absent]


async def test_what_becomes_an_upload_counts_as_one_before_it_is_fetched(tmp_path: Path) -> None:
    settings = {**AUTH, "input_urls_allow_private": True}
    async with Simulator(FAST) as sim, running(tmp_path, sim.url, **settings) as service, site() as server:
        someone = await _account(service, await person(service, password=None, tier="free"))
        urls = [f"http://127.0.0.1:{server.port}/picture?{n}" for n in range(24)]
        upload = next(iter((await service.services.inputs.resolve(someone, urls[:16])).values()))
        for references in (urls[16:], [data_url(png(n)) for n in range(5)]):
            with pytest.raises(ServiceError) as raised:  # 4 are left, and stay
                await service.services.inputs.resolve(someone, [upload.id, *references])
            assert raised.value.code is Code.RATE_LIMIT_EXCEEDED
            assert raised.value.retry_after is not None
        assert len(server.asked) == 16
        for _ in range(30):  # what is an upload already costs nothing
            await service.services.inputs.resolve(someone, [upload.id])
        assert len(await service.services.inputs.resolve(someone, urls[16:20])) == 4
        with pytest.raises(ServiceError):
            await service.services.inputs.resolve(someone, ["job_00000000000000000000000000"])


async def _account(service: Service, one: Person) -> Account:
    found = await service.services.access.of_sent(one.headers["X-API-Key"])
    return found.account


async def _things(service: Service, owner: Person) -> tuple[str, str]:
    async with connected(service.app) as client:
        upload = await client.post("/api/v1/upload", files={"file": png()}, headers=owner.headers)
        body = {"prompt": "x", "width": 64, "height": 64, "steps": 1}
        made = await client.post("/api/v1/generate", json=body, headers=owner.headers)
        assert made.status_code == 201
        return upload.json()["upload_id"], made.json()["job_id"]

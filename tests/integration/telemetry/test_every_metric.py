"""Each metric of docs/METRICS.md moves when its cause happens, in a service with all its parts."""

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.support.causes import BLOCKED, CAUSES, NEVER, PARKED_LIMIT, SPARE, STANDING, Series, Stage
from tests.support.collector import collector
from tests.support.hooks import hook_server
from tests.support.people import AUTH, calling, person
from tests.support.s3 import S3Server, s3_settings
from tests.support.sites import site
from tests.support.stack import FAST, online, running, until
from tests.support.valkey import Valkey

from comfy_api_service.services import deliverer, passwords
from comfy_api_service.simulator import Simulator
from comfy_api_service.worker import contact, oversight, worker

METRICS = Path(__file__).parents[3] / "docs" / "METRICS.md"
MOVES_WITHIN = 30.0


@pytest.fixture
async def stage(
    tmp_path: Path, own_valkey: Valkey, own_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    monkeypatch.setattr(worker, "MEASURE_SECONDS", 0.05)
    monkeypatch.setattr(deliverer, "MEASURE_SECONDS", 0.05)
    monkeypatch.setattr(oversight, "ZOMBIE_SECONDS", 0.5)
    monkeypatch.setattr(oversight, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(oversight, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(contact, "HEALTHY_SECONDS", 0.2)
    monkeypatch.setattr(contact, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(passwords, "_MEMORY_KIB", 64)
    terms = tmp_path / "terms.txt"
    terms.write_text(BLOCKED)
    async with AsyncExitStack() as stack:
        sim, spare = [await stack.enter_async_context(Simulator(one)) for one in (FAST, SPARE)]
        hook = await stack.enter_async_context(hook_server())
        pictures = await stack.enter_async_context(site())
        traces = stack.enter_context(collector())
        service = await stack.enter_async_context(
            running(
                tmp_path / "data",
                sim.url,
                spare.url,
                redis_url=own_valkey.url,
                prompt_blocklist_file=terms,
                prompt_hook=hook.url,
                input_urls_allow_private=True,
                webhook_allow_private=True,
                otel_exporter_otlp_endpoint=traces.url,
                parked_limit=PARKED_LIMIT,
                **s3_settings(own_s3.bucket("results")),
                **AUTH,
            )
        )
        await online(service, 2)
        who = await person(service)
        client = await stack.enter_async_context(calling(service, who))
        yield Stage(
            service,
            client,
            who,
            sim,
            spare,
            own_valkey,
            own_s3,
            hook,
            traces,
            f"http://127.0.0.1:{pictures.port}/picture",
        )


@pytest.mark.timeout(300)  # many causes, one after the other
async def test_each_moves_when_its_cause_happens(stage: Stage) -> None:
    def figures(names: Iterable[Series]) -> dict[Series, float | None]:
        found: dict[Series, float | None] = {}
        for name, labels in names:
            if any(value == "*" for _, value in labels):
                wanted = {key: value for key, value in labels if value != "*"}
                found[name, labels] = next(
                    sample.value
                    for family in stage.service.services.metrics.registry.collect()
                    for sample in family.samples
                    if sample.name == name and wanted.items() <= sample.labels.items()
                )
            else:
                found[name, labels] = stage.service.services.metrics.registry.get_sample_value(
                    name, dict(labels)
                )
        return found

    def standing() -> bool:
        return all((value or 0) > 0 for value in figures(STANDING).values())

    await until(standing)
    still: dict[str, set[Series]] = {}
    for cause in CAUSES:
        before = figures(cause.moves)
        async with cause.act(stage):
            left = set(cause.moves)

            def moved(before: dict[Series, float | None] = before, left: set[Series] = left) -> bool:
                left -= {one for one, value in figures(left).items() if value != before[one]}
                return not left

            try:
                await until(moved, MOVES_WITHIN)
            except TimeoutError:
                still[cause.act.__name__] = left
    assert not still


def test_every_documented_metric_has_a_cause_and_every_cause_is_documented() -> None:
    page = METRICS.read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `(comfyui_\w+)`", page, re.MULTILINE))
    of_the_process = set(re.findall(r"`((?:python|process)_\w+)`", page))
    figures = {*STANDING, *(one for cause in CAUSES for one in cause.moves)}
    caused = {name.removesuffix("_count") for name, _ in figures}
    assert rows | of_the_process == caused | NEVER

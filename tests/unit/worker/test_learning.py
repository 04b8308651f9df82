from dataclasses import replace
from typing import Any

import pytest

from comfy_api_service.domain.job import OutputOptions, State
from comfy_api_service.domain.upload import JobInput
from comfy_api_service.worker.assignment import Assignment
from comfy_api_service.worker.learning import learned
from comfy_api_service.worker.verdict import Produced

ASSIGNMENT = Assignment(
    job_id="job_1",
    account_id="acc_1",
    attempt=1,
    prompt_id="p",
    worker_id="w",
    client_id="c",
    state=State.EXECUTING,
    graph=None,
    params={},
    output=OutputOptions(),
    model="m.safetensors",
    timing_key="kind",
    images=1,
    queued_at=0.0,
    dispatched_at=0.0,
)
BY_PICTURE: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "upload"}},
    "2": {"class_type": "VAEEncode", "inputs": {"pixels": ["1", 0]}},
    "3": {"class_type": "KSampler", "inputs": {"latent_image": ["2", 0], "steps": 10}},
}
SCALED: dict[str, Any] = BY_PICTURE | {
    "2": {"class_type": "ImageScale", "inputs": {"image": ["1", 0], "width": 256, "height": 256}},
}
UPLOADED = replace(ASSIGNMENT, inputs=(JobInput("1", "image", "upl_1"),))


def _produced(seconds: float | None = 10.0, cached: frozenset[str] = frozenset()) -> Produced:
    return Produced((), cached, seconds)


def test_a_run_tells_of_its_kind_its_work_and_its_model() -> None:
    found = learned(UPLOADED, _produced(), SCALED, loading=2.0)
    work = 256 * 256 * 10
    assert found == {
        "kind": 8.0,
        "all": 10.0,
        "unit": pytest.approx(8 / work),
        "unit:m.safetensors": pytest.approx(8 / work),
        "load:m.safetensors": 2.0,
    }


def test_a_picture_of_unknown_size_tells_nothing_of_work() -> None:
    assert learned(UPLOADED, _produced(), BY_PICTURE, loading=0.0).keys() == {"kind", "all"}


def test_what_was_cached_or_not_timed_tells_nothing() -> None:
    assert learned(ASSIGNMENT, _produced(None), SCALED, loading=0.0) == {}
    assert learned(ASSIGNMENT, _produced(cached=frozenset({"3"})), SCALED, loading=0.0) == {}

"""Requests that differ in their texts and seeds alone share what was found out once; nobody sees a difference."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.generation_pools import FORMS, MODELS, never, pool
from tests.unit.domain.test_recipes import CONTROLS, LORAS, POOL, UPLOAD, UPSCALES, requests, texts

from comfy_api_service.domain import compilation
from comfy_api_service.domain.compilation import Compiled, compile_generation, timing_key
from comfy_api_service.domain.errors import Code, Refused
from comfy_api_service.domain.generation import resolve
from comfy_api_service.domain.generation_request import SEED_MAX, GenerationRequest
from comfy_api_service.domain.graph import canonical, requirement_of
from comfy_api_service.domain.params import params_of
from comfy_api_service.domain.sampling import Sampler, Scheduler

STAND_INS = tuple(str(value) for value in compilation._OWN.values())
own_texts = texts | st.sampled_from(STAND_INS)


def compiled(request: GenerationRequest) -> Compiled:
    return compile_generation(request, POOL, default_model=None, seed_source=never)


def check(request: GenerationRequest) -> None:
    """It is what it would be alone."""
    found, alone = compiled(request), resolve(request, POOL, None, never)
    assert alone.graph is not None
    assert found.graph is not None
    assert list(found.graph) == list(alone.graph)
    assert canonical(found.graph) == canonical(alone.graph)
    assert found.params == params_of(alone.request)
    assert found.requirement == requirement_of(alone.graph)
    assert (found.images, found.pixel_steps) == (alone.images, alone.pixel_steps)
    assert found.timing_key == timing_key(alone.request)


@given(
    requests,
    st.lists(st.tuples(own_texts, own_texts | st.just(""), st.integers(0, SEED_MAX)), min_size=1, max_size=3),
)
def test_any_request_is_compiled_as_if_it_were_the_first(
    request: GenerationRequest, others: list[tuple[str, str, int]]
) -> None:
    check(request)
    for prompt, negative, seed in others:
        check(request._replace(prompt=prompt, negative_prompt=negative, seed=seed))
    check(request)


def test_all_but_texts_and_seed_tells_requests_apart() -> None:
    base = GenerationRequest("a fox", "no dogs", seed=1, model=FORMS["sdxl"])
    check(base)
    others: dict[str, Any] = {
        "width": 640, "height": 640, "steps": 21, "cfg_scale": 3.5, "sampler": Sampler.DDIM,
        "scheduler": Scheduler.KARRAS, "model": FORMS["sd15"], "batch_size": 2, "clip_skip": 3, "loras": LORAS[:1],
        "upscale": UPSCALES[2], "image": UPLOAD, "strength": 0.5, "mask": UPLOAD, "controlnets": CONTROLS[:1],
    }  # fmt: skip
    assert set(others) == set(GenerationRequest._fields) - {"prompt", "negative_prompt", "seed"}
    for name, value in others.items():
        check(base._replace(**{name: value}))


def test_what_one_asked_is_in_nobody_elses_graph() -> None:
    one = compiled(GenerationRequest("a fox", "no dogs", seed=1, model=FORMS["sd15"]))
    other = compiled(GenerationRequest("an owl", "no cats", seed=2, model=FORMS["sd15"]))
    for found, own, others in (
        (one, (b"a fox", b"no dogs"), b"owl"),
        (other, (b"an owl", b"no cats"), b"fox"),
    ):
        graph = canonical(found.graph or {})
        assert all(text in graph for text in own)
        assert others not in graph


@pytest.mark.parametrize("seed", [None, -1])
def test_each_random_seed_is_drawn_anew(seed: int | None) -> None:
    drawn = iter([5, 2**64 - 1])
    for expected in (5, 2**64 - 1):
        request = GenerationRequest("x", seed=seed, model=FORMS["sd15"])
        found = compile_generation(request, POOL, default_model=None, seed_source=lambda: next(drawn))
        assert found.params["seed"] == expected
        assert found.graph is not None
        assert found.graph["5"]["inputs"]["seed"] == expected


def test_it_is_forgotten_with_the_pool() -> None:
    request = GenerationRequest("x", seed=1, model=FORMS["sd15"])
    compiled(request)
    left = [name for name in MODELS["checkpoints"] if name != request.model]
    with pytest.raises(Refused) as refused:
        compile_generation(
            request, pool({**MODELS, "checkpoints": left}), default_model=None, seed_source=never
        )
    assert refused.value.code is Code.MODEL_NOT_FOUND


def test_the_default_model_is_a_part_of_it() -> None:
    request = GenerationRequest("x", seed=1)
    for model in (FORMS["sd15"], FORMS["sdxl"], FORMS["sd15"]):
        found = compile_generation(request, POOL, default_model=model, seed_source=never)
        assert found.params["model"] == model


def test_no_more_kinds_are_remembered_than_fit_and_none_with_files() -> None:
    catalogue = pool()
    kinds = compilation._kinds(catalogue, None)
    for steps in range(1, 151):
        for width in (64, 72, 80, 88):
            request = GenerationRequest("x", seed=1, model=FORMS["sd15"], steps=steps, width=width)
            found = compile_generation(request, catalogue, default_model=None, seed_source=never)
            assert found.timing_key == timing_key(request)
            assert len(kinds) <= compilation._MOST_KINDS
    before = len(kinds)
    assert before > 0
    pictured = GenerationRequest("x", seed=1, model=FORMS["sd15"], image=UPLOAD)
    compile_generation(pictured, catalogue, default_model=None, seed_source=never)
    assert len(kinds) == before

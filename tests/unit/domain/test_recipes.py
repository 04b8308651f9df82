import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.generation_pools import FORMS, MODELS, never, pool, resolved
from tests.unit.domain.graph_check import VERSIONS, faults, object_info

from comfy_api_service.domain import generation_request as bounds
from comfy_api_service.domain.families import Family
from comfy_api_service.domain.generation import GenerationRequest, Lora, Upscale, resolve
from comfy_api_service.domain.generation_request import ControlNet
from comfy_api_service.domain.graph import Graph, canonical, pictures_in, pixel_steps, requirement_of
from comfy_api_service.domain.recipes import compile_graph
from comfy_api_service.domain.sampling import Sampler, Scheduler

LORAS = tuple(Lora(name, weight) for name, weight in zip(MODELS["loras"], (0.8, -1.0, 2), strict=True))
UPSCALES = (
    None,
    Upscale(None, bounds.UPSCALE_FACTOR_MIN),
    Upscale(None, 1.37),
    Upscale("4x-UltraSharp.pth", 1.37),
    Upscale("4x-UltraSharp.pth", bounds.UPSCALE_FACTOR_MAX),
    Upscale(None, 2),
)
UPLOAD = "upl_00000000000000000000000000"
CONTROLS = tuple(ControlNet(name, UPLOAD, 0.5, 0.1, 0.9) for name in MODELS["controlnet"])
SIZES = ((64, 64), (72, 2048), (1000, 520), (2048, 2048), (2040, 2040))


def graph_of(form: str, **options: Any) -> Graph:
    graph = resolved(FORMS[form], **options).graph
    assert graph is not None
    return graph


def only(graph: Graph, class_type: str) -> Mapping[str, Any]:
    """The inputs of the one node of that class."""
    (inputs,) = (node["inputs"] for node in graph.values() if node["class_type"] == class_type)
    return dict(inputs)


def classes(graph: Graph) -> list[str]:
    return [node["class_type"] for node in graph.values()]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_with_every_option_is_valid(form: str, version: str) -> None:
    info = object_info(version)
    options = itertools.product(
        ((), LORAS[:1], LORAS), (None, 1, 2, bounds.CLIP_SKIP_MAX), UPSCALES, SIZES, (1, 4), (1, 7, 30.0)
    )
    for loras, clip_skip, upscale, (width, height), batch, cfg in options:
        graph = graph_of(
            form,
            loras=loras,
            clip_skip=clip_skip,
            upscale=upscale,
            width=width,
            height=height,
            batch_size=batch,
            cfg_scale=cfg,
            steps=150,
            seed=bounds.SEED_MAX,
        )
        assert faults(graph, info) == []
        assert pictures_in(graph) == batch
        assert len([name for name in classes(graph) if name.startswith("LoraLoader")]) == len(loras)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_begins_from_pictures(form: str, version: str) -> None:
    info = object_info(version)
    for image, mask, controls, batch in itertools.product(
        (None, UPLOAD), (None, UPLOAD), ((), CONTROLS[:1], CONTROLS), (1, 4)
    ):
        if image is None and mask is not None:
            continue
        graph = graph_of(
            form, image=image, mask=mask, controlnets=controls, batch_size=batch, strength=0.5, width=72
        )
        assert faults(graph, info) == []
        assert pictures_in(graph) == batch
        assert only(graph, "KSampler")["denoise"] == (1.0 if image is None else 0.5)
        named = [node["inputs"]["image"] for node in graph.values() if node["class_type"] == "LoadImage"]
        assert named == [UPLOAD] * ((image is not None) + (mask is not None) + len(controls))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("form", FORMS)
def test_every_sampler_with_every_scheduler_is_valid(form: str, version: str) -> None:
    info = object_info(version)
    for sampler, scheduler in itertools.product(Sampler, (None, *Scheduler)):
        assert faults(graph_of(form, sampler=sampler, scheduler=scheduler), info) == []


@pytest.mark.parametrize("form", FORMS)
def test_node_ids_count_from_one_and_the_last_is_the_preview(form: str) -> None:
    graph = graph_of(form, loras=LORAS, upscale=UPSCALES[3])
    assert list(graph) == [str(n) for n in range(1, len(graph) + 1)]
    assert classes(graph)[-1] == "PreviewImage"
    assert classes(graph).count("PreviewImage") == 1


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)
requests = st.builds(
    GenerationRequest,
    prompt=texts,
    negative_prompt=texts,
    width=st.integers(8, 256).map(lambda n: n * 8),
    height=st.integers(8, 256).map(lambda n: n * 8),
    steps=st.integers(bounds.STEPS_MIN, bounds.STEPS_MAX),
    cfg_scale=st.floats(bounds.CFG_MIN, bounds.CFG_MAX),
    sampler=st.sampled_from(Sampler),
    scheduler=st.none() | st.sampled_from(Scheduler),
    seed=st.integers(0, bounds.SEED_MAX),
    model=st.sampled_from(sorted(FORMS.values())),
    batch_size=st.integers(bounds.BATCH_MIN, bounds.BATCH_MAX),
    clip_skip=st.none() | st.integers(bounds.CLIP_SKIP_MIN, bounds.CLIP_SKIP_MAX),
    loras=st.lists(st.sampled_from(LORAS), max_size=3).map(tuple),
    upscale=st.sampled_from(UPSCALES),
    image=st.sampled_from((None, UPLOAD)),
    strength=st.floats(bounds.STRENGTH_MIN, bounds.STRENGTH_MAX),
    mask=st.sampled_from((None, UPLOAD)),
    controlnets=st.lists(st.sampled_from(CONTROLS), max_size=2).map(tuple),
)
INFOS = [object_info(version) for version in VERSIONS]
POOL = pool()


@given(requests)
def test_the_same_request_gives_the_same_bytes_and_any_request_a_valid_graph(
    request: GenerationRequest,
) -> None:
    first = resolve(request, POOL, None, never)
    again = resolve(first.request, pool(), "another default", never)
    assert first.graph is not None
    assert first.plan is not None
    assert again.graph is not None
    assert canonical(first.graph) == canonical(again.graph) == canonical(compile_graph(first.plan))
    for info in INFOS:
        assert faults(first.graph, info) == []


@given(requests)
def test_what_is_asked_is_in_the_graph(request: GenerationRequest) -> None:
    graph = resolve(request, POOL, None, never).graph
    assert graph is not None
    sampler = only(graph, "KSampler")
    assert (sampler["seed"], sampler["steps"]) == (request.seed, request.steps)
    written = [node["inputs"]["text"] for node in graph.values() if node["class_type"] == "CLIPTextEncode"]
    assert written[0] == request.prompt
    named = {request.model} | {lora.name for lora in request.loras}
    assert {model.name for model in requirement_of(graph).models} >= named
    other = request._replace(seed=(request.seed or 0) ^ 1)
    changed = resolve(other, POOL, None, never).graph
    assert changed is not None
    assert canonical(changed) != canonical(graph)


def test_the_need_does_not_depend_on_prompt_seed_or_size() -> None:
    one = requirement_of(graph_of("sd15"))
    assert one is requirement_of(graph_of("sd15", prompt="else", seed=8, width=1024))
    assert one.primary == f"checkpoints/{FORMS['sd15']}"


@pytest.mark.parametrize("form", FORMS)
def test_the_work_is_the_pixels_times_the_steps(form: str) -> None:
    graph = graph_of(form, width=1024, height=512, steps=30, batch_size=2, upscale=UPSCALES[1])
    assert pixel_steps(graph) == 1024 * 512 * 30 * 2
    assert resolved(FORMS[form], width=1024, height=512, steps=30, batch_size=2).pixel_steps == pixel_steps(
        graph
    )


def test_sd_wires_loras_then_clip_skip_then_both_prompts() -> None:
    graph = graph_of("sd15", loras=LORAS[:2], clip_skip=2, negative_prompt="blurred")
    assert classes(graph) == [
        "CheckpointLoaderSimple",
        "LoraLoader",
        "LoraLoader",
        "CLIPSetLastLayer",
        "CLIPTextEncode",
        "CLIPTextEncode",
        "EmptyLatentImage",
        "KSampler",
        "VAEDecode",
        "PreviewImage",
    ]
    assert graph["2"]["inputs"]["model"] == ["1", 0]
    assert graph["3"]["inputs"] == {
        "model": ["2", 0],
        "clip": ["2", 1],
        "lora_name": LORAS[1].name,
        "strength_model": -1.0,
        "strength_clip": -1.0,
    }
    assert only(graph, "CLIPSetLastLayer") == {"clip": ["3", 1], "stop_at_clip_layer": -2}
    assert [graph[n]["inputs"] for n in ("5", "6")] == [
        {"text": "a quiet harbour", "clip": ["4", 0]},
        {"text": "blurred", "clip": ["4", 0]},
    ]
    sampler = only(graph, "KSampler")
    assert sampler["model"] == ["3", 0]
    assert (sampler["positive"], sampler["negative"], sampler["latent_image"]) == (
        ["5", 0],
        ["6", 0],
        ["7", 0],
    )
    assert (sampler["cfg"], sampler["sampler_name"], sampler["scheduler"]) == (
        7.0,
        "euler_ancestral",
        "normal",
    )


def test_an_upscale_model_ends_in_exactly_the_size_asked_for() -> None:
    graph = graph_of("sdxl", width=520, height=1000, upscale=Upscale("4x-UltraSharp.pth", 1.5))
    scale = only(graph, "ImageScale")
    assert (scale["width"], scale["height"], scale["upscale_method"]) == (780, 1500, "lanczos")
    assert graph[scale["image"][0]]["class_type"] == "ImageUpscaleWithModel"
    assert only(graph, "PreviewImage")["images"] == [str(len(graph) - 1), 0]


def test_upscaling_without_a_model_scales_by_the_factor() -> None:
    scale = only(graph_of("sdxl", upscale=Upscale(factor=1.5)), "ImageScaleBy")
    assert (scale["scale_by"], scale["upscale_method"]) == (1.5, "lanczos")


@pytest.mark.parametrize("form", [form for form in FORMS if form.startswith(("sd3", "flux"))])
def test_coarse_latents_are_rounded_up_and_cut_to_size(form: str) -> None:
    graph = graph_of(form, width=1032, height=1024)
    latent = only(graph, "EmptySD3LatentImage")
    assert (latent["width"], latent["height"]) == (1040, 1024)
    crop = only(graph, "ImageCrop")
    assert (crop["width"], crop["height"], crop["x"], crop["y"]) == (1032, 1024, 4, 0)
    assert "ImageCrop" not in classes(graph_of(form, width=1040, height=1024))


def test_flux_takes_guidance_for_cfg_and_no_negative_prompt() -> None:
    graph = graph_of("flux in parts", negative_prompt="blurred", clip_skip=2, loras=LORAS[:1])
    assert only(graph, "FluxGuidance")["guidance"] == 3.5
    sampler = only(graph, "KSampler")
    assert (sampler["cfg"], sampler["scheduler"]) == (1.0, "simple")
    assert graph[sampler["negative"][0]]["class_type"] == "ConditioningZeroOut"
    assert graph[sampler["positive"][0]]["class_type"] == "FluxGuidance"
    assert graph[sampler["model"][0]]["class_type"] == "LoraLoaderModelOnly"
    assert b"blurred" not in canonical(graph)
    assert "CLIPSetLastLayer" not in classes(graph)
    assert only(graph, "DualCLIPLoader") == {
        "clip_name1": "t5xxl_fp16.safetensors",
        "clip_name2": "clip_l.safetensors",
        "type": "flux",
    }
    assert only(graph, "VAELoader") == {"vae_name": "ae.safetensors"}
    assert only(graph, "UNETLoader") == {"unet_name": "flux1-dev.safetensors", "weight_dtype": "default"}


def test_a_flux_checkpoint_brings_its_parts() -> None:
    graph = graph_of("flux checkpoint")
    assert {"UNETLoader", "VAELoader", "DualCLIPLoader"}.isdisjoint(classes(graph))
    assert only(graph, "VAEDecode")["vae"] == ["1", 2]


@pytest.mark.parametrize(
    ("form", "loaders"),
    [
        ("sd3 checkpoint with encoders", {"CheckpointLoaderSimple"}),
        ("sd3 checkpoint without encoders", {"CheckpointLoaderSimple", "TripleCLIPLoader"}),
        ("sd3 in parts", {"UNETLoader", "TripleCLIPLoader", "VAELoader"}),
    ],
)
def test_sd3_loads_what_its_file_does_not_bring(form: str, loaders: set[str]) -> None:
    graph = graph_of(form)
    assert {name for name in classes(graph) if "Loader" in name} == loaders
    assert only(graph, "ModelSamplingSD3")["shift"] == 3.0
    assert only(graph, "KSampler")["scheduler"] == "sgm_uniform"
    if "TripleCLIPLoader" in loaders:
        assert list(only(graph, "TripleCLIPLoader").values()) == [
            "clip_l.safetensors",
            "clip_g.safetensors",
            "t5xxl_fp16.safetensors",
        ]


def test_every_family_has_a_form() -> None:
    assert {resolved(model).family for model in FORMS.values()} == set(Family)

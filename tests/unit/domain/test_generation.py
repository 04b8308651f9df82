import pytest
from tests.unit.domain.generation_pools import FORMS, MODELS, inventory, never, pool, resolved

from comfy_api_service.domain.errors import Code, Refused, ValidationFailed
from comfy_api_service.domain.families import Family
from comfy_api_service.domain.generation import GenerationRequest, Lora, Upscale, resolve
from comfy_api_service.domain.inventory import Catalogue

SECRET = "a prompt that no message may hold"


def refusal(model: str | None = None, catalogue: Catalogue | None = None, **options: object) -> Refused:
    with pytest.raises(Refused) as caught:
        resolved(model or "", catalogue, prompt=SECRET, **options)
    assert SECRET not in caught.value.message
    assert SECRET not in str(caught.value.details)
    return caught.value


def without(kind: str, *parts: str) -> Catalogue:
    left = [name for name in MODELS[kind] if not name.startswith(parts)]
    return pool({**MODELS, kind: left})


@pytest.mark.parametrize("seed", [None, -1])
def test_a_random_seed_is_drawn_once_and_told(seed: int | None) -> None:
    drawn = iter([2**64 - 1])
    done = resolve(GenerationRequest("x", seed=seed, model=FORMS["sd15"]), pool(), None, lambda: next(drawn))
    assert done.seed == done.request.seed == 2**64 - 1
    assert done.graph is not None
    assert done.graph["5"]["inputs"]["seed"] == 2**64 - 1


def test_seed_zero_is_a_seed() -> None:
    assert resolved(FORMS["sd15"], seed=0).seed == 0


def test_the_model_is_the_requests_then_the_default_then_the_first_of_a_told_family() -> None:
    bare = GenerationRequest("x", seed=1)
    catalogue = pool({**MODELS, "checkpoints": ("aaa.safetensors", *FORMS.values())})
    named = GenerationRequest("x", seed=1, model=FORMS["sdxl"])
    assert resolve(named, catalogue, FORMS["sd15"], never).model == FORMS["sdxl"]
    assert resolve(bare, catalogue, FORMS["sd15"], never).model == FORMS["sd15"]
    assert resolve(bare, catalogue, None, never).model == "flux1-dev.safetensors"
    assert resolve(bare, pool({"checkpoints": ("b.ckpt", "a.ckpt")}), None, never).model == "a.ckpt"


def test_an_unknown_name_among_checkpoints_is_taken_for_sd15() -> None:
    assert resolved("a.ckpt", pool({"checkpoints": ("a.ckpt",)})).family is Family.SD15


def test_a_pool_without_checkpoints_has_no_default() -> None:
    error = refusal(None, pool({"checkpoints": (), "loras": ("a.pt",)}))
    assert error.code is Code.MODEL_NOT_FOUND
    assert error.details["kind"] == "checkpoints"


def test_an_absent_model_is_refused_with_the_nearest_names() -> None:
    error = refusal("juggernautXL_v8.safetensors")
    assert error.code is Code.MODEL_NOT_FOUND
    assert error.details == {
        "model": "juggernautXL_v8.safetensors",
        "kind": "checkpoints",
        "nearest": ["juggernautXL_v9.safetensors"],
    }


def test_an_absent_default_is_refused_too() -> None:
    with pytest.raises(Refused) as caught:
        resolve(GenerationRequest("x", seed=1), pool(), "gone.safetensors", never)
    assert caught.value.details["model"] == "gone.safetensors"


def test_an_absent_diffusion_model_is_sought_where_it_would_stand() -> None:
    models = {"checkpoints": ("sdxl.safetensors",), "diffusion_models": ("flux1-dev.safetensors",)}
    assert refusal("flux1-dev", pool(models)).details["kind"] == "diffusion_models"


def test_an_absent_lora_or_upscale_model_is_refused() -> None:
    error = refusal(FORMS["sd15"], loras=(Lora("film.safetensors"), Lora("films.safetensors")))
    assert (error.code, error.details["kind"]) == (Code.MODEL_NOT_FOUND, "loras")
    assert error.details["nearest"][0] == "film.safetensors"
    error = refusal(FORMS["sd15"], upscale=Upscale("4x_UltraSharp.pth"))
    assert (error.details["kind"], error.details["nearest"]) == ("upscale_models", ["4x-UltraSharp.pth"])


@pytest.mark.parametrize(
    ("form", "kind", "absent", "usual"),
    [
        ("flux in parts", "text_encoders", "clip_l", "clip_l.safetensors"),
        ("flux in parts", "text_encoders", "t5xxl", "t5xxl_fp16.safetensors"),
        ("flux in parts", "vae", "ae.", "ae.safetensors"),
        ("sd3 in parts", "text_encoders", "clip_g", "clip_g.safetensors"),
        ("sd3 in parts", "vae", "sd3", "sd3_vae.safetensors"),
    ],
)
def test_an_absent_part_is_refused_by_its_usual_name(form: str, kind: str, absent: str, usual: str) -> None:
    error = refusal(FORMS[form], without(kind, absent))
    assert error.code is Code.MODEL_NOT_FOUND
    assert (error.details["kind"], error.details["model"]) == (kind, usual)


def test_an_sd3_checkpoint_does_without_the_pools_encoders_when_they_are_not_all_there() -> None:
    done = resolved(FORMS["sd3 checkpoint without encoders"], without("text_encoders", "clip_g"))
    assert done.plan is not None
    assert done.plan.parts.clips == ()


def test_parts_are_taken_from_the_backends_that_have_the_model() -> None:
    flux = {"diffusion_models": ("flux1-dev.safetensors",), "vae": ("ae.safetensors",)}
    catalogue = Catalogue.of(
        {
            "a": inventory({"text_encoders": ("clip_l.safetensors", "t5xxl_a.safetensors")}),
            "b": inventory({**flux, "text_encoders": ("clip_l.safetensors", "t5xxl_b.safetensors")}),
            "c": inventory({**flux, "text_encoders": ("clip_l.safetensors", "t5xxl_b.safetensors")}),
            "d": inventory({**flux, "text_encoders": ("clip_l.safetensors", "t5xxl_a.safetensors")}),
        }
    )
    done = resolved("flux1-dev.safetensors", catalogue)
    assert done.plan is not None
    assert done.plan.parts.clips == ("clip_l.safetensors", "t5xxl_b.safetensors")


def test_each_part_narrows_where_the_next_is_sought() -> None:
    flux = {"diffusion_models": ("flux1-dev.safetensors",), "vae": ("ae.safetensors",)}
    catalogue = Catalogue.of(
        {
            "a": inventory({**flux, "text_encoders": ("clip_l.safetensors", "t5xxl_b.safetensors")}),
            "b": inventory({**flux, "text_encoders": ("t5xxl_a.safetensors",)}),
            "c": inventory({**flux, "text_encoders": ("t5xxl_a.safetensors",)}),
        }
    )
    done = resolved("flux1-dev.safetensors", catalogue)
    assert done.plan is not None
    assert done.plan.parts.clips == ("clip_l.safetensors", "t5xxl_b.safetensors")


@pytest.mark.parametrize("model", ["wan2.1_t2v.safetensors", "flux2-dev.safetensors"])
def test_a_model_that_no_recipe_fits_is_a_fault_of_the_field(model: str) -> None:
    error = refusal(model)
    assert isinstance(error, ValidationFailed)
    assert error.details["errors"][0]["field"] == "model"


def test_before_any_inventory_a_named_checkpoint_is_compiled_unchecked() -> None:
    done = resolved(
        "some/where.safetensors", Catalogue.empty(), loras=(Lora("l.pt"),), upscale=Upscale("u.pth")
    )
    assert done.family is Family.SD15
    assert done.graph is not None
    assert done.graph["1"]["inputs"] == {"ckpt_name": "some/where.safetensors"}


@pytest.mark.parametrize("model", [None, "no-suffix", "flux1-dev.safetensors", "sd3.5_large.safetensors"])
def test_before_any_inventory_the_rest_waits_with_its_seed(model: str | None) -> None:
    request = GenerationRequest("x", model=model)
    waiting = resolve(request, Catalogue.empty(), None, lambda: 42)
    assert (waiting.graph, waiting.plan, waiting.family) == (None, None, None)
    assert (waiting.seed, waiting.request.seed, waiting.model) == (42, 42, model)
    if model in FORMS.values() or model is None:
        later = resolve(waiting.request, pool(), None, never)
        assert later.graph is not None
        assert later.seed == 42


def test_before_any_inventory_the_default_counts_as_named() -> None:
    done = resolve(GenerationRequest("x", seed=1), Catalogue.empty(), "sd_xl_base_1.0.safetensors", never)
    assert (done.family, done.model) == (Family.SDXL, "sd_xl_base_1.0.safetensors")

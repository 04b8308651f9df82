import pytest

from comfy_api_service.domain.families import Family, is_flux_2, like, named_family


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("v1-5-pruned-emaonly.safetensors", Family.SD15),
        ("v2-1_768-ema-pruned.ckpt", Family.SD15),
        ("sd-v1-4.ckpt", Family.SD15),
        ("SD15/dreamshaper_8.safetensors", Family.SD15),
        ("tiny_sd15.safetensors", Family.SD15),
        ("stable-diffusion-2-1.safetensors", Family.SD15),
        ("sd_xl_base_1.0.safetensors", Family.SDXL),
        ("realvisxlV40.safetensors", Family.SDXL),
        ("SDXL\\turbo.safetensors", Family.SDXL),
        ("ponyDiffusionV6.safetensors", Family.SDXL),
        ("Illustrious-v1.safetensors", Family.SDXL),
        ("sd3.5_large.safetensors", Family.SD3),
        ("sd3_medium_incl_clips.safetensors", Family.SD3),
        ("SD_3_medium.safetensors", Family.SD3),
        ("sd35_large.safetensors", Family.SD3),
        ("stable-diffusion-3-medium.safetensors", Family.SD3),
        ("FLUX1/flux1-dev-fp8.safetensors", Family.FLUX),
        ("jibMixFlux_v8.safetensors", Family.FLUX),
        ("svd_xt.safetensors", None),
        ("wan2.1_t2v_14B.safetensors", None),
        ("mysd_300.safetensors", None),
    ],
)
def test_families_by_name(name: str, family: Family | None) -> None:
    assert named_family(name) is family


@pytest.mark.parametrize("name", ["flux2-dev.safetensors", "FLUX.2-klein-4b.safetensors", "flux-2-dev.sft"])
def test_flux_2_is_told_from_flux_1(name: str) -> None:
    assert is_flux_2(name)


@pytest.mark.parametrize("name", ["flux1-dev.safetensors", "jibMixFlux_v2.safetensors", "flux_dev2.sft"])
def test_flux_1_is_not_flux_2(name: str) -> None:
    assert not is_flux_2(name)


@pytest.mark.parametrize(
    ("own", "names", "found"),
    [
        ("v1-5.safetensors", ["flux1.sft", "v1-5.safetensors"], "v1-5.safetensors"),
        ("v1-5.safetensors", ["flux1.sft", "mine.ckpt", "sd-v1-4.ckpt"], "sd-v1-4.ckpt"),
        ("v1-5.safetensors", ["flux1.sft", "mine.ckpt"], "mine.ckpt"),
        ("v1-5.safetensors", ["flux1.sft", "sd_xl.ckpt"], None),
        ("4x-UltraSharp.pth", ["RealESRGAN_x4plus.pth"], "RealESRGAN_x4plus.pth"),
        ("4x-UltraSharp.pth", [], None),
    ],
)
def test_a_model_that_fits_where_another_stood(own: str, names: list[str], found: str | None) -> None:
    assert like(own, names) == found

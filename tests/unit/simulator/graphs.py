"""Graphs for the tests, one for each way of making a picture."""

import copy
from typing import Any

Graph = dict[str, Any]
SD15 = "v1-5-pruned-emaonly.safetensors"
SDXL = "sd_xl_base_1.0.safetensors"


def node(name: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": name, "inputs": inputs}


def flat(color: int = 1, prefix: str = "flat", count: int = 1) -> Graph:
    """The cheapest graph: a plain picture, saved."""
    return {
        "1": node("EmptyImage", width=64, height=64, batch_size=count, color=color),
        "2": node("SaveImage", images=["1", 0], filename_prefix=prefix),
    }


def text_to_image(
    *, seed: int = 1, steps: int = 2, model: str = SD15, size: tuple[int, int] = (64, 64), count: int = 1
) -> Graph:
    return {
        "4": node("CheckpointLoaderSimple", ckpt_name=model),
        "5": node("EmptyLatentImage", width=size[0], height=size[1], batch_size=count),
        "6": node("CLIPTextEncode", text="a sunset", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="blurry", clip=["4", 1]),
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
        "9": node("SaveImage", images=["8", 0], filename_prefix="picture"),
    }


def with_lora() -> Graph:
    graph = text_to_image(model=SDXL, size=(128, 96))
    graph["10"] = node(
        "LoraLoader",
        model=["4", 0],
        clip=["11", 0],
        lora_name="add_detail.safetensors",
        strength_model=0.8,
        strength_clip=1.0,
    )
    graph["11"] = node("CLIPSetLastLayer", clip=["4", 1], stop_at_clip_layer=-2)
    graph["3"]["inputs"]["model"] = ["10", 0]
    graph["6"]["inputs"]["clip"] = ["10", 1]
    return graph


def sd3() -> Graph:
    graph = text_to_image(model="sd3_medium_incl_clips_t5xxlfp8.safetensors", size=(128, 128))
    graph["5"]["class_type"] = "EmptySD3LatentImage"
    graph["12"] = node("ModelSamplingSD3", model=["4", 0], shift=3.0)
    graph["3"]["inputs"]["model"] = ["12", 0]
    return graph


def flux() -> Graph:
    return {
        "1": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
        "2": node(
            "DualCLIPLoader",
            clip_name1="t5xxl_fp8_e4m3fn.safetensors",
            clip_name2="clip_l.safetensors",
            type="flux",
        ),
        "3": node("VAELoader", vae_name="ae.safetensors"),
        "4": node("CLIPTextEncode", text="a castle", clip=["2", 0]),
        "5": node("FluxGuidance", conditioning=["4", 0], guidance=3.5),
        "6": node("ModelSamplingFlux", model=["1", 0], max_shift=1.15, base_shift=0.5, width=128, height=128),
        "7": node("BasicGuider", model=["6", 0], conditioning=["5", 0]),
        "8": node("KSamplerSelect", sampler_name="euler"),
        "9": node("BasicScheduler", model=["6", 0], scheduler="simple", steps=3, denoise=1.0),
        "10": node("RandomNoise", noise_seed=7),
        "11": node("EmptySD3LatentImage", width=128, height=128, batch_size=1),
        "12": node(
            "SamplerCustomAdvanced",
            noise=["10", 0],
            guider=["7", 0],
            sampler=["8", 0],
            sigmas=["9", 0],
            latent_image=["11", 0],
        ),
        "13": node("VAEDecode", samples=["12", 0], vae=["3", 0]),
        "14": node("SaveImage", images=["13", 0], filename_prefix="flux"),
    }


def image_to_image(name: str = "example.png", denoise: float = 0.5) -> Graph:
    graph = text_to_image()
    graph["20"] = node("LoadImage", image=name)
    graph["5"] = node("VAEEncode", pixels=["20", 0], vae=["4", 2])
    graph["3"]["inputs"]["denoise"] = denoise
    return graph


def inpaint(name: str = "example.png") -> Graph:
    graph = image_to_image(name, 1.0)
    graph["5"] = node("VAEEncodeForInpaint", pixels=["20", 0], vae=["4", 2], mask=["20", 1], grow_mask_by=6)
    return graph


def control_net() -> Graph:
    graph = text_to_image()
    graph["20"] = node("LoadImage", image="example.png")
    graph["21"] = node("ControlNetLoader", control_net_name="control_v11p_sd15_canny.pth")
    graph["23"] = node("Canny", image=["20", 0], low_threshold=0.4, high_threshold=0.8)
    graph["22"] = node(
        "ControlNetApplyAdvanced",
        positive=["6", 0],
        negative=["7", 0],
        control_net=["21", 0],
        image=["23", 0],
        strength=0.7,
        start_percent=0.0,
        end_percent=1.0,
    )
    graph["3"]["inputs"]["positive"] = ["22", 0]
    graph["3"]["inputs"]["negative"] = ["22", 1]
    return graph


def upscaled() -> Graph:
    graph = text_to_image()
    graph["30"] = node("UpscaleModelLoader", model_name="RealESRGAN_x4plus.pth")
    graph["31"] = node("ImageUpscaleWithModel", upscale_model=["30", 0], image=["8", 0])
    graph["9"]["inputs"]["images"] = ["31", 0]
    return graph


def high_resolution_fix() -> Graph:
    graph = text_to_image()
    graph["40"] = node("LatentUpscaleBy", samples=["3", 0], upscale_method="bilinear", scale_by=2.0)
    graph["41"] = copy.deepcopy(graph["3"])
    graph["41"]["inputs"] |= {"latent_image": ["40", 0], "denoise": 0.5}
    graph["8"]["inputs"]["samples"] = ["41", 0]
    return graph

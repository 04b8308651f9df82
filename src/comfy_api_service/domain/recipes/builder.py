"""Writing a graph down node by node, and the beginnings and endings that recipes share."""

from typing import Any, Final

from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.recipes.plan import Plan

Output = list[Any]
"""A link: `[node_id, output]`."""

_COARSE: Final = 16
"""EmptySD3LatentImage takes its sizes in steps of this many pixels."""


class Builder:
    """A graph in the making."""

    __slots__ = ("_nodes",)

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, Any]] = {}

    def add(self, class_type: str, /, **inputs: Any) -> str:
        """Adds a node and returns its id."""
        node_id = str(len(self._nodes) + 1)
        self._nodes[node_id] = {"class_type": class_type, "inputs": inputs}
        return node_id

    def graph(self) -> Graph:
        return self._nodes


def load_model(build: Builder, plan: Plan) -> tuple[Output, Output | None, Output | None]:
    """(model, clip, vae), the latter two None if the plan's parts bring them."""
    if plan.bundled:
        loader = build.add("CheckpointLoaderSimple", ckpt_name=plan.model)
        clip = None if plan.parts.clips else [loader, 1]
        return [loader, 0], clip, None if plan.parts.vae else [loader, 2]
    return [build.add("UNETLoader", unet_name=plan.model, weight_dtype="default"), 0], None, None


def load_vae(build: Builder, plan: Plan) -> Output:
    """The VAE that stands beside the model."""
    return [build.add("VAELoader", vae_name=plan.parts.vae), 0]


def patch_loras(build: Builder, plan: Plan, model: Output, clip: Output) -> tuple[Output, Output]:
    """The LoRAs one after the other, on the model and its text encoders with the same weight."""
    for lora in plan.request.loras:
        weight = float(lora.weight)
        node = build.add(
            "LoraLoader",
            model=model,
            clip=clip,
            lora_name=lora.name,
            strength_model=weight,
            strength_clip=weight,
        )
        model, clip = [node, 0], [node, 1]
    return model, clip


def latent(build: Builder, plan: Plan, vae: Output) -> Output:
    """What the sampler begins from: an empty latent, or the caller's picture."""
    request = plan.request
    if request.image is not None:
        return _from_picture(build, plan, vae, request.width, request.height)
    return [
        build.add(
            "EmptyLatentImage", width=request.width, height=request.height, batch_size=request.batch_size
        ),
        0,
    ]


def coarse_latent(build: Builder, plan: Plan, vae: Output) -> Output:
    """The same with 16 channels, its sides rounded up to the node's steps of 16 pixels."""
    if plan.request.image is not None:
        width, height = _round_up(plan.request.width), _round_up(plan.request.height)
        return _from_picture(build, plan, vae, width, height)
    return [
        build.add(
            "EmptySD3LatentImage",
            width=_round_up(plan.request.width),
            height=_round_up(plan.request.height),
            batch_size=plan.request.batch_size,
        ),
        0,
    ]


def _from_picture(build: Builder, plan: Plan, vae: Output, width: int, height: int) -> Output:
    """The picture, scaled to fill the size and cut around its middle; where there is a mask, its white part alone
    is made anew.
    """
    request = plan.request
    picture = _loaded(build, request.image or "", width, height)
    found: Output = [build.add("VAEEncode", pixels=picture, vae=vae), 0]
    if request.mask is not None:
        mask = build.add("ImageToMask", image=_loaded(build, request.mask, width, height), channel="red")
        found = [build.add("SetLatentNoiseMask", samples=found, mask=[mask, 0]), 0]
    if request.batch_size > 1:
        found = [build.add("RepeatLatentBatch", samples=found, amount=request.batch_size), 0]
    return found


def _loaded(build: Builder, file: str, width: int, height: int) -> Output:
    loader = build.add("LoadImage", image=file)
    scaled = build.add(
        "ImageScale",
        image=[loader, 0],
        upscale_method="lanczos",
        width=width,
        height=height,
        crop="center",
    )
    return [scaled, 0]


def denoise(plan: Plan) -> float:
    """How much of what the sampler begins from is made anew."""
    return 1.0 if plan.request.image is None else float(plan.request.strength)


def controlled(
    build: Builder, plan: Plan, positive: Output, negative: Output, vae: Output | None = None
) -> tuple[Output, Output]:
    """The conditionings with the hints of all ControlNets; `vae` for the families whose ControlNets need one."""
    for control in plan.request.controlnets:
        loader = build.add("ControlNetLoader", control_net_name=control.model)
        hint = build.add("LoadImage", image=control.image)
        more = {} if vae is None else {"vae": vae}
        node = build.add(
            "ControlNetApplyAdvanced",
            positive=positive,
            negative=negative,
            control_net=[loader, 0],
            image=[hint, 0],
            strength=float(control.strength),
            start_percent=float(control.start),
            end_percent=float(control.end),
            **more,
        )
        positive, negative = [node, 0], [node, 1]
    return positive, negative


def crop_coarse(build: Builder, plan: Plan, image: Output) -> Output:
    """The request's size from the middle of what `coarse_latent` rounded up, if it did round."""
    width, height = plan.request.width, plan.request.height
    right, below = _round_up(width) - width, _round_up(height) - height
    if not right and not below:
        return image
    crop = build.add("ImageCrop", image=image, width=width, height=height, x=right // 2, y=below // 2)
    return [crop, 0]


def finish(build: Builder, plan: Plan, image: Output) -> Graph:
    """Upscales if asked, and ends in PreviewImage: PNG at zlib level 1, where SaveImage takes level 4.

    An upscale model has a factor of its own; what it gives is then scaled to the size that was asked for.
    """
    request = plan.request
    upscale = request.upscale
    if upscale is not None:
        factor = float(upscale.factor)
        if upscale.model is None:
            scaled = build.add("ImageScaleBy", image=image, upscale_method="lanczos", scale_by=factor)
        else:
            loader = build.add("UpscaleModelLoader", model_name=upscale.model)
            larger = build.add("ImageUpscaleWithModel", upscale_model=[loader, 0], image=image)
            scaled = build.add(
                "ImageScale",
                image=[larger, 0],
                upscale_method="lanczos",
                width=round(request.width * factor),
                height=round(request.height * factor),
                crop="disabled",
            )
        image = [scaled, 0]
    build.add("PreviewImage", images=image)
    return build.graph()


def _round_up(size: int) -> int:
    return -(-size // _COARSE) * _COARSE

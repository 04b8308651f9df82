"""Nodes that load models: they take time when the model is not resident, and give its name."""

from comfy_api_service.simulator.values import Clip, Model, Named, Vae

from .base import Call, NodeFailure, Outputs, node


@node("CheckpointLoaderSimple")
async def checkpoint(call: Call) -> Outputs:
    name = call.text("ckpt_name")
    await call.around.shelf.need(name)
    return Model(name), Clip((name,)), Vae(name)


@node("UNETLoader")
async def unet(call: Call) -> Outputs:
    name = call.text("unet_name")
    await call.around.shelf.need(name)
    return (Model(name),)


@node("CLIPLoader", "DualCLIPLoader", "TripleCLIPLoader")
def clip(call: Call) -> Outputs:
    names = tuple(str(v) for k, v in call.inputs.items() if k.startswith("clip_name"))
    return (Clip(tuple(_file(call, "text_encoders", name) for name in names)),)


@node("VAELoader")
def vae(call: Call) -> Outputs:
    return (Vae(call.text("vae_name")),)


def _file(call: Call, folder: str, name: str) -> str:
    """The name, if there is such a file: validation does not always look."""
    if name not in call.around.settings.models.get(folder, ()):
        raise NodeFailure(
            "FileNotFoundError", f"Model in folder '{folder}' with filename '{name}' not found."
        )
    return name


def _with_lora(call: Call) -> Model:
    model = call.model()
    return Model(model.name, (*model.loras, (call.text("lora_name"), call.number("strength_model", 1.0))))


@node("LoraLoader")
def lora(call: Call) -> Outputs:
    return _with_lora(call), call.get("clip", Clip)


@node("LoraLoaderModelOnly")
def lora_model_only(call: Call) -> Outputs:
    return (_with_lora(call),)


@node("ControlNetLoader")
def control_net(call: Call) -> Outputs:
    return (Named("controlnet", call.text("control_net_name")),)


@node("UpscaleModelLoader")
def upscale_model(call: Call) -> Outputs:
    return (Named("upscaler", _file(call, "upscale_models", call.text("model_name"))),)


@node("CLIPVisionLoader")
def clip_vision(call: Call) -> Outputs:
    return (Named("clip vision", call.text("clip_name")),)


@node("StyleModelLoader")
def style_model(call: Call) -> Outputs:
    return (Named("style", call.text("style_model_name")),)


@node("CLIPVisionEncode")
def clip_vision_encode(call: Call) -> Outputs:
    return (Named("clip vision output", str(call.images())),)


@node("CLIPSetLastLayer")
def clip_skip(call: Call) -> Outputs:
    return (Clip(call.get("clip", Clip).names, call.integer("stop_at_clip_layer", -1)),)

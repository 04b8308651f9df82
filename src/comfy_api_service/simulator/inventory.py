"""The nodes and models that a simulated server has, as `/object_info` and `/models` tell them."""

import copy
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from .encoding import encode
from .settings import Protocol, SimulatorSettings

MODEL_INPUTS: Mapping[tuple[str, str], str] = {
    ("CheckpointLoaderSimple", "ckpt_name"): "checkpoints",
    ("LoraLoader", "lora_name"): "loras",
    ("LoraLoaderModelOnly", "lora_name"): "loras",
    ("ControlNetLoader", "control_net_name"): "controlnet",
    ("UpscaleModelLoader", "model_name"): "upscale_models",
    ("UNETLoader", "unet_name"): "diffusion_models",
    ("CLIPLoader", "clip_name"): "text_encoders",
    ("DualCLIPLoader", "clip_name1"): "text_encoders",
    ("DualCLIPLoader", "clip_name2"): "text_encoders",
    ("TripleCLIPLoader", "clip_name1"): "text_encoders",
    ("TripleCLIPLoader", "clip_name2"): "text_encoders",
    ("TripleCLIPLoader", "clip_name3"): "text_encoders",
    ("VAELoader", "vae_name"): "vae",
    ("CLIPVisionLoader", "clip_name"): "clip_vision",
    ("StyleModelLoader", "style_model_name"): "style_models",
}
PICTURE_INPUTS = (("LoadImage", "image"), ("LoadImageMask", "image"))
VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov")

FOLDERS: Mapping[Protocol, tuple[str, ...]] = {
    "0.3.64": (
        "checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision",
        "style_models", "embeddings", "diffusers", "vae_approx", "controlnet", "gligen", "upscale_models",
        "custom_nodes", "hypernetworks", "photomaker", "classifiers", "model_patches", "audio_encoders",
    ),
    "0.8.0": (
        "checkpoints", "configs", "loras", "vae", "text_encoders", "diffusion_models", "clip_vision",
        "style_models", "embeddings", "diffusers", "vae_approx", "controlnet", "gligen", "upscale_models",
        "latent_upscale_models", "custom_nodes", "hypernetworks", "photomaker", "classifiers",
        "model_patches", "audio_encoders",
    ),
}  # fmt: skip


@cache
def _recorded(protocol: Protocol) -> dict[str, dict[str, Any]]:
    source = resources.files(__package__).joinpath("data", f"object_info-{protocol}.json")
    loaded: dict[str, dict[str, Any]] = json.loads(source.read_text(encoding="utf-8"))
    return loaded


class NodeClass:
    """One node class, in the form that validation and execution need."""

    __slots__ = ("info", "inputs", "name", "output", "output_node", "required")

    def __init__(self, name: str, info: dict[str, Any]) -> None:
        self.name = name
        self.info = info
        self.required: dict[str, list[Any]] = info["input"].get("required", {})
        self.inputs: dict[str, list[Any]] = {**self.required, **info["input"].get("optional", {})}
        self.output: Sequence[Any] = info["output"]
        self.output_node: bool = info["output_node"]


class Inventory:
    """Built once a life of the server; only the lists of input files change."""

    def __init__(self, settings: SimulatorSettings, inputs: list[str]) -> None:
        self._settings = settings
        self.folders = FOLDERS[settings.protocol]
        self.classes: dict[str, NodeClass] = {}
        for name, recorded in _recorded(settings.protocol).items():
            if name in settings.without_nodes:
                continue
            info = copy.deepcopy(recorded)
            info.setdefault("python_module", "nodes")
            self.classes[name] = NodeClass(name, info)
        for (name, field), folder in MODEL_INPUTS.items():
            extra = ["pixel_space"] if folder == "vae" else []
            self._enumerate(name, field, [*self.models(folder), *extra])
        self._bytes: bytes | None = None
        self.set_inputs(inputs)

    @property
    def checks_newer_enumerations(self) -> bool:
        """Whether validation looks at `["COMBO", {"options": …}]`: 0.3.64 knows lists only, and lets all pass."""
        return self._settings.protocol != "0.3.64"

    def models(self, folder: str) -> list[str]:
        return list(self._settings.models.get(folder, ()))

    def set_inputs(self, names: list[str]) -> None:
        for node, field in PICTURE_INPUTS:
            self._enumerate(node, field, names)
        self._enumerate("LoadVideo", "file", [n for n in names if n.lower().endswith(VIDEO_SUFFIXES)])
        self._enumerate("LoadLatent", "latent", [n for n in names if n.endswith(".latent")])
        self._bytes = None

    def object_info(self) -> bytes:
        """The whole answer, kept ready."""
        if self._bytes is None:
            self._bytes = encode({name: c.info for name, c in self.classes.items()})
        return self._bytes

    def _enumerate(self, name: str, field: str, values: list[str]) -> None:
        """Put a list of names where the recorded server had its own, in the form that it used there."""
        if (node := self.classes.get(name)) is None:
            return
        spec = node.inputs[field]
        if isinstance(spec[0], list):
            spec[0] = values
        else:
            spec[1]["options"] = values

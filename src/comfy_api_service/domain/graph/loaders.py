"""Which inputs of which nodes name a model file, and of which kind.

Kinds are the names of ComfyUI's model folders (`folder_paths.py`; `unet_gguf` and `clip_gguf` are those of
ComfyUI-GGUF). A loader that is not in the table has a kind of its own, `Class.input`: its list may hold names
that the core's loader of the same folder does not accept. Embeddings are named inside prompts and listed
nowhere in `/object_info`; ComfyUI passes over one that is absent, so no requirement speaks of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

MODEL_SUFFIXES: Final = (
    ".safetensors",
    ".sft",
    ".ckpt",
    ".pt",
    ".pt2",
    ".pth",
    ".pkl",
    ".bin",
    ".gguf",
    ".onnx",
)
"""What a model file's name ends in, in lower case (`folder_paths.supported_pt_extensions`, and others)."""

KINDS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("CheckpointLoaderSimple", "ckpt_name"): "checkpoints",
        ("CheckpointLoader", "ckpt_name"): "checkpoints",
        ("CheckpointLoader", "config_name"): "configs",
        ("ImageOnlyCheckpointLoader", "ckpt_name"): "checkpoints",
        ("unCLIPCheckpointLoader", "ckpt_name"): "checkpoints",
        ("CreateHookModelAsLora", "ckpt_name"): "checkpoints",
        ("CreateHookModelAsLoraModelOnly", "ckpt_name"): "checkpoints",
        ("DiffusersLoader", "model_path"): "diffusers",
        ("UNETLoader", "unet_name"): "diffusion_models",
        ("UnetLoaderGGUF", "unet_name"): "unet_gguf",
        ("UnetLoaderGGUFAdvanced", "unet_name"): "unet_gguf",
        ("LoraLoader", "lora_name"): "loras",
        ("LoraLoaderModelOnly", "lora_name"): "loras",
        ("CreateHookLora", "lora_name"): "loras",
        ("CreateHookLoraModelOnly", "lora_name"): "loras",
        ("VAELoader", "vae_name"): "vae",
        ("ControlNetLoader", "control_net_name"): "controlnet",
        ("DiffControlNetLoader", "control_net_name"): "controlnet",
        ("UpscaleModelLoader", "model_name"): "upscale_models",
        ("LatentUpscaleModelLoader", "model_name"): "latent_upscale_models",
        ("CLIPLoader", "clip_name"): "text_encoders",
        ("DualCLIPLoader", "clip_name1"): "text_encoders",
        ("DualCLIPLoader", "clip_name2"): "text_encoders",
        ("TripleCLIPLoader", "clip_name1"): "text_encoders",
        ("TripleCLIPLoader", "clip_name2"): "text_encoders",
        ("TripleCLIPLoader", "clip_name3"): "text_encoders",
        ("QuadrupleCLIPLoader", "clip_name1"): "text_encoders",
        ("QuadrupleCLIPLoader", "clip_name2"): "text_encoders",
        ("QuadrupleCLIPLoader", "clip_name3"): "text_encoders",
        ("QuadrupleCLIPLoader", "clip_name4"): "text_encoders",
        ("CLIPLoaderGGUF", "clip_name"): "clip_gguf",
        ("DualCLIPLoaderGGUF", "clip_name1"): "clip_gguf",
        ("DualCLIPLoaderGGUF", "clip_name2"): "clip_gguf",
        ("TripleCLIPLoaderGGUF", "clip_name1"): "clip_gguf",
        ("TripleCLIPLoaderGGUF", "clip_name2"): "clip_gguf",
        ("TripleCLIPLoaderGGUF", "clip_name3"): "clip_gguf",
        ("CLIPVisionLoader", "clip_name"): "clip_vision",
        ("StyleModelLoader", "style_model_name"): "style_models",
        ("GLIGENLoader", "gligen_name"): "gligen",
        ("HypernetworkLoader", "hypernetwork_name"): "hypernetworks",
        ("PhotoMakerLoader", "photomaker_model_name"): "photomaker",
        ("AudioEncoderLoader", "audio_encoder_name"): "audio_encoders",
        ("LTXVAudioVAELoader", "ckpt_name"): "checkpoints",
        ("LTXAVTextEncoderLoader", "ckpt_name"): "checkpoints",
        ("LTXAVTextEncoderLoader", "text_encoder"): "text_encoders",
        ("ModelPatchLoader", "name"): "model_patches",
    }
)
"""(class, input) → kind."""


@dataclass(frozen=True, slots=True, order=True)
class ModelRef:
    """A model file: its kind and its name, as ComfyUI's list of that kind spells it."""

    kind: str
    name: str


def is_model_name(name: str) -> bool:
    """True if the name ends as model files do."""
    return name.lower().endswith(MODEL_SUFFIXES)


def kind_of(class_name: str, input_name: str) -> str | None:
    """The kind of model that the input names; None for inputs of classes that are no loaders.

    The kind `Class.input` of a loader that is not in the table holds only names that end as model files do,
    so that its other enumerations (a data type, a device) are not taken for models.
    """
    kind = KINDS.get((class_name, input_name))
    if kind is None and "Loader" in class_name and class_name not in _IN_TABLE:
        return f"{class_name}.{input_name}"
    return kind


def model_of(class_name: str, input_name: str, value: object) -> tuple[str, str] | None:
    """(kind, name) of the model that this value of the input names, or None."""
    if not isinstance(value, str):
        return None
    kind = KINDS.get((class_name, input_name))
    if kind is None:
        kind = kind_of(class_name, input_name)
        if kind is None or not is_model_name(value):
            return None
    return kind, value


def models_of(class_name: str, inputs: Mapping[str, object]) -> Sequence[tuple[str, str]]:
    """`model_of` every input of a node; few nodes are loaders, and only those are looked at closer."""
    if (table := _IN_TABLE.get(class_name)) is not None:
        return [(kind, name) for key, kind in table if isinstance(name := inputs.get(key), str)]
    if "Loader" in class_name:
        found = (model_of(class_name, key, value) for key, value in inputs.items())
        return [model for model in found if model is not None]
    return ()


_IN_TABLE: Final[Mapping[str, list[tuple[str, str]]]] = {
    class_name: [(key, kind) for (of, key), kind in KINDS.items() if of == class_name]
    for class_name, _ in KINDS
}
"""Class → (input, kind) of each of its inputs that name a model."""

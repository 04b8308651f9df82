"""What a simulated server is like: how fast, how big, which models, which version of ComfyUI."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

Protocol = Literal["0.3.64", "0.8.0"]

DEFAULT_MODELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "checkpoints": (
            "flux1-dev-fp8.safetensors",
            "sd3_medium_incl_clips_t5xxlfp8.safetensors",
            "sd_xl_base_1.0.safetensors",
            "v1-5-pruned-emaonly.safetensors",
        ),
        "loras": ("add_detail.safetensors", "flux_realism.safetensors", "sdxl_lightning_8step.safetensors"),
        "vae": ("ae.safetensors", "vae-ft-mse-840000-ema-pruned.safetensors"),
        "text_encoders": (
            "clip_g.safetensors",
            "clip_l.safetensors",
            "t5xxl_fp16.safetensors",
            "t5xxl_fp8_e4m3fn.safetensors",
        ),
        "diffusion_models": ("flux1-dev.safetensors", "flux1-schnell.safetensors"),
        "clip_vision": ("clip_vision_g.safetensors",),
        "style_models": ("flux1-redux-dev.safetensors",),
        "controlnet": (
            "control_v11f1p_sd15_depth.pth",
            "control_v11p_sd15_canny.pth",
            "controlnet-canny-sdxl-1.0.safetensors",
        ),
        "upscale_models": ("4x-UltraSharp.pth", "RealESRGAN_x4plus.pth"),
        "embeddings": ("easynegative.safetensors",),
    }
)
"""File names by ComfyUI's folder; each family of models is there once, so that every recipe finds its own."""

GIBIBYTE = 1 << 30


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSettings:
    """Times are seconds, sizes bytes. The defaults behave like a fast GPU box; tests set times to 0."""

    protocol: Protocol = "0.8.0"
    newer: bool = False
    """As from about 0.26: atomic cancel, 409 for a known prompt_id, 400 for one that is no lower-case UUID,
    no file outside input/ in loaders, jobs that were interrupted are "cancelled"."""

    seconds_per_step: float = 0.05
    seconds_per_load: float = 1.5
    """Reading a checkpoint or diffusion model that is not resident."""
    resident_models: int = 1
    seconds_per_prompt: float | None = None
    """If set, each prompt that runs anything takes just this long, whatever its steps."""
    seconds_between_prompts: float = 0.003
    cleanup_seconds: float = 0.25
    """What the worker spends on cleaning when a prompt ended and none waits; a prompt that comes waits."""

    models: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: DEFAULT_MODELS)
    without_nodes: frozenset[str] = frozenset()
    """Node classes that this server lacks."""
    previews: bool = True
    preview_size: int = 256
    fixed_output: bytes | None = None
    """If set, every saved picture has these bytes: nothing is drawn, encoded or written to disk."""

    device_name: str = "cuda:0 Simulated GPU : native"
    device_type: str = "cuda"
    device_index: int | None = 0
    ram_total: int = 32 * GIBIBYTE
    vram_total: int = 24 * GIBIBYTE
    model_bytes: int = 4 * GIBIBYTE
    """What a resident model takes of the memory reported."""
    allocation_limit: int = GIBIBYTE // 2
    """An image batch bigger than this (4 bytes a pixel) fails as on a server out of memory."""

    history_size: int = 10_000
    max_upload_size: int = 104_857_600
    folder: Path | None = None
    """Where input/, output/ and temp/ live; none: a temporary folder, removed at the end."""
    control: bool = False
    """Offer the faults and the record over HTTP under /_simulator."""

"""The corpora of graphs, `tests/data/graphs/*.jsonl`, one graph a line: a new one is a new line.

A line of `legitimate.jsonl`: `name`, `graph`, and `policy` (`core` unless it says `open`).
A line of `hostile.jsonl`: `class` of attack, `name`, `code`, `policy`, and the graph in one of three ways:
`graph` itself; `make`, the name of a function here; or `base`, the name of a legitimate one, with changes: `set`
(`"node.input": value`), `node` (`"id": node`) and `remove` (`["node", "node.input"]`). `blind` is the code
without an inventory where that is another one; null if nothing is found without.
"""

import copy
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from tests.unit.domain.graph_check import object_info

from comfy_api_service.comfyui.inventory import parse
from comfy_api_service.domain.checking import Rules
from comfy_api_service.domain.graph import KINDS
from comfy_api_service.domain.inventory import Inventory
from comfy_api_service.domain.node_policy import NodePolicy

_DATA: Final = Path(__file__).parents[2] / "data" / "graphs"

MODELS: Final[Mapping[str, list[str]]] = {
    "checkpoints": [
        "tiny_sd15.safetensors", "v1-5-pruned-emaonly.safetensors", "juggernautXL_v9.safetensors",
        "sd3_medium_incl_clips_t5xxlfp8.safetensors", "sd3.5_large.safetensors", "flux1-schnell-fp8.safetensors",
        "stable_audio_open.safetensors",
    ],
    "clip_vision": ["clip_vision_g.safetensors"],
    "controlnet": ["control_canny.safetensors", "control_depth.safetensors"],
    "diffusion_models": [
        "flux1-dev.safetensors", "sd3.5_medium.safetensors", "wan2.1_t2v.safetensors", "qwen_edit.safetensors",
    ],
    "loras": ["film.safetensors", "lcm.safetensors", "SD15\\windows.safetensors"],
    "style_models": ["style.safetensors"],
    "text_encoders": [
        "clip_g.safetensors", "clip_l.safetensors", "t5xxl_fp16.safetensors", "umt5_xxl_fp8.safetensors",
        "qwen_vl.safetensors",
    ],
    "upscale_models": ["4x-UltraSharp.pth"],
    "vae": ["ae.safetensors", "pixel_space", "sd3_vae.safetensors", "wan_vae.safetensors", "qwen_vae.safetensors"],
}  # fmt: skip
"""What the servers of these tests have, in place of the one model of the recorded ones."""

FILES: Final[Mapping[tuple[str, str], list[str]]] = {
    ("LoadImage", "image"): [
        "..%2F..%2F..%2Ftmp%2Fevil.png",
        "example.png",
        "in.png",
        "holiday/2024/in (1).png",
        "jobs/a/in.png",
    ],
    ("LoadVideo", "file"): ["clip.mp4"],
    ("LoadLatent", "latent"): ["a.latent"],
}
"""And the files of their input folders; the first one a recorded server really had."""


def stocked_info(version: str) -> dict[str, Any]:
    """The recorded `/object_info` with `MODELS` and `FILES` in its lists."""
    info = object_info(version)
    lists = {where: MODELS[kind] for where, kind in KINDS.items() if kind in MODELS} | dict(FILES)
    for (name, key), options in lists.items():
        spec = info.get(name, {}).get("input", {}).get("required", {}).get(key)
        if spec is None:
            continue
        if isinstance(spec[0], list):
            spec[0] = list(options)
        else:
            spec[1]["options"] = list(options)
    return info


@cache
def stocked(version: str) -> Inventory:
    return parse(stocked_info(version))


def rules(line: Mapping[str, Any]) -> Rules:
    return Rules(NodePolicy.open() if line.get("policy") == "open" else NodePolicy.core())


@cache
def legitimate() -> Mapping[str, Mapping[str, Any]]:
    """Name → line."""
    return {line["name"]: line for line in _lines("legitimate")}


@cache
def hostile() -> Mapping[str, Mapping[str, Any]]:
    """`class: name` → line."""
    return {f"{line['class']}: {line['name']}": line for line in _lines("hostile")}


def _lines(name: str) -> list[dict[str, Any]]:
    text = (_DATA / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def graph_of(line: Mapping[str, Any]) -> Any:
    """The document of a line of either corpus, a copy of its own."""
    if "make" in line:
        return MAKERS[line["make"]]()
    if "base" not in line:
        return copy.deepcopy(line["graph"])
    graph = graph_of(legitimate()[line["base"]])
    graph |= copy.deepcopy(line.get("node", {}))
    for place, value in line.get("set", {}).items():
        node_id, _, key = place.partition(".")
        graph[node_id]["inputs"][key] = value
    for place in line.get("remove", []):
        node_id, dot, key = place.partition(".")
        if dot:
            del graph[node_id]["inputs"][key]
        else:
            del graph[node_id]
    return graph


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def _image(**inputs: Any) -> dict[str, Any]:
    return _node("EmptyImage", **({"width": 64, "height": 64, "batch_size": 1, "color": 0} | inputs))


def _shown(nodes: dict[str, Any], last: str) -> dict[str, Any]:
    return nodes | {"end": _node("PreviewImage", images=[last, 0])}


def _row(length: int, first: dict[str, Any], then: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """`length` nodes, each made by `then` of the id of the one before."""
    nodes = {"0": first} | {str(n): then(str(n - 1)) for n in range(1, length)}
    return _shown(nodes, str(length - 1))


def _texts(join: Callable[[str], dict[str, Any]], times: int) -> dict[str, Any]:
    nodes = {"0": _node("PrimitiveString", value="x" * 100)}
    nodes |= {str(n): join(str(n - 1)) for n in range(1, times)}
    return nodes | {"end": _node("PreviewAny", source=[str(times - 1), 0])}


def _replaced(text: Any, old: Any, new: Any) -> dict[str, Any]:
    replacing = _node("StringReplace", string=text, find=old, replace=new)
    return {"0": replacing, "end": _node("PreviewAny", source=["0", 0])}


def _deep(kind: str, depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


def _wide(count: int) -> dict[str, Any]:
    return _shown({str(n): _image() for n in range(count)}, "0")


def _based(name: str, node_id: str, key: str, value: Any) -> dict[str, Any]:
    graph: dict[str, Any] = graph_of(legitimate()[name])
    graph[node_id]["inputs"][key] = value
    return graph


def _combined(times: int) -> dict[str, Any]:
    graph: dict[str, Any] = graph_of(legitimate()["text to image"])
    for n in range(times):
        before = f"c{n - 1}" if n else "6"
        graph[f"c{n}"] = _node("ConditioningCombine", conditioning_1=[before, 0], conditioning_2=[before, 0])
    graph["3"]["inputs"]["positive"] = [f"c{times - 1}", 0]
    return graph


MAKERS: Final[Mapping[str, Callable[[], Any]]] = {
    "a row of 300 nodes": lambda: _row(300, _image(), lambda before: _node("ImageInvert", image=[before, 0])),
    "a row of 1900 nodes": lambda: _row(1900, _image(), lambda before: _node("ImageInvert", image=[before, 0])),
    "2001 nodes": lambda: _wide(2000),
    "20000 nodes": lambda: _wide(19_999),
    "batches doubled 20 times": lambda: _row(
        20, _image(), lambda before: _node("ImageBatch", image1=[before, 0], image2=[before, 0])
    ),
    "batches doubled 200 times": lambda: _row(
        200, _image(), lambda before: _node("ImageBatch", image1=[before, 0], image2=[before, 0])
    ),
    "texts doubled 30 times": lambda: _texts(
        lambda before: _node("StringConcatenate", string_a=[before, 0], string_b=[before, 0], delimiter=""), 30
    ),
    "texts replaced by themselves": lambda: _texts(
        lambda before: _node("StringReplace", string=[before, 0], find="x", replace=[before, 0]), 30
    ),
    "a text replaced by a long one 100000 times": lambda: _replaced("x" * 100_000, "x", "y" * 100_000),
    "a text replaced by an unknown one": lambda: _replaced("x" * 100_000, "xx", ["caption", 0])
    | {"caption": _node("SomeCaptioner")},
    "texts concatenated to 10 million characters": lambda: {
        "0": _node("PrimitiveString", value="x" * 90_000),
        "1": _node("StringConcatenate", string_a=["0", 0], string_b=["0", 0], delimiter=""),
    }
    | {
        str(n): _node("StringConcatenate", string_a=[str(n - 1), 0], string_b=["0", 0], delimiter="")
        for n in range(2, 20)
    }
    | {"end": _node("PreviewAny", source=["19", 0])},
    "conditionings doubled 30 times": lambda: _combined(30),
    "pictures stitched 10 times": lambda: _row(
        10,
        _image(width=1024, height=1024),
        lambda before: _node(
            "ImageStitch", image1=[before, 0], image2=[before, 0], direction="right", match_image_size=True,
            spacing_width=0, spacing_color="white",
        ),
    ),
    "scaled eightfold again and again": lambda: _row(
        6, _image(), lambda before: _node("ImageScaleBy", image=[before, 0], upscale_method="area", scale_by=8.0)
    ),
    "repeated 64 times again and again": lambda: _row(
        5, _image(), lambda before: _node("RepeatImageBatch", image=[before, 0], amount=4096)
    ),
    "padded again and again": lambda: _row(
        30,
        _image(),
        lambda before: _node(
            "ImagePadForOutpaint", image=[before, 0], left=16384, top=16384, right=16384, bottom=16384,
            feathering=0,
        ),
    ),
    "enlarged by a model again and again": lambda: _row(
        8, _image(), lambda before: _node("ImageUpscaleWithModel", upscale_model=["m", 0], image=[before, 0])
    ) | {"m": _node("UpscaleModelLoader", model_name="4x-UltraSharp.pth")},
    "2000 previews of a large batch": lambda: {"0": _image(batch_size=4096)}
    | {f"p{n}": _node("PreviewImage", images=["0", 0]) for n in range(1500)},
    "a list 40 deep": lambda: _based("text to image", "6", "text", _deep("list", 40)),
    "an object 40 deep": lambda: _based("text to image", "6", "text", _deep("object", 40)),
    "a list 100000 deep": lambda: _based("text to image", "6", "text", _deep("list", 100_000)),
    "an object 100000 deep": lambda: _based("text to image", "6", "more", _deep("object", 100_000)),
    "a class 100000 deep": lambda: {"1": {"class_type": _deep("list", 100_000), "inputs": {}}},
    "inputs 100000 deep": lambda: {"1": {"class_type": "PreviewImage", "inputs": _deep("list", 100_000)}},
    "a node 100000 deep": lambda: {"1": _deep("list", 100_000)},
    "nothing but a list 100000 deep": lambda: _deep("list", 100_000),
    "a text of a million characters": lambda: _based("text to image", "6", "text", "x" * 1_000_000),
    "3 MB of texts": lambda: graph_of(legitimate()["text to image"])
    | {f"t{n}": _node("PrimitiveString", value="x" * 99_000) for n in range(30)},
    "3 MB of emoji": lambda: graph_of(legitimate()["text to image"])
    | {f"t{n}": _node("PrimitiveString", value="🌅" * 25_000) for n in range(30)},
    "a data URL of 20 million characters": lambda: _based(
        "image to image from an upload", "1", "image", "data:image/png;base64," + "A" * 20_000_000
    ),
    "a data URL in a prompt": lambda: _based(
        "text to image", "6", "text", "data:image/png;base64," + "A" * 2_000_000
    ),
    "1000 inputs in a node": lambda: {"1": _node("PreviewImage", **{f"i{n}": 0 for n in range(1000)})},
    "a circle of 500 nodes": lambda: _row(
        500, _node("ImageInvert", image=["499", 0]), lambda before: _node("ImageInvert", image=[before, 0])
    ),
    "a number of 5000 digits": lambda: _based("text to image", "3", "seed", 10**5000),
    "a number of 5000 digits as a text": lambda: _based("text to image", "3", "seed", "9" * 5000),
    "a node's id of 10000 characters": lambda: {"1" * 10_000: _node("PreviewImage")},
    "a class of 10000 characters": lambda: {"1": _node("P" * 10_000)},
    "1500 misspelt classes": lambda: {f"n{n}": _node(f"KSampIer{n}") for n in range(1500)},
}  # fmt: skip
"""What is too large to be a line."""

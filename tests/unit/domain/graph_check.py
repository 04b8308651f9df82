"""A small reading of ComfyUI's own validation, strict where ComfyUI is lax: for graphs that this service makes.

Works on a raw `/object_info`, not on the service's own inventory, so that the two cannot err together.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from comfy_api_service import simulator

_DATA: Final = Path(next(iter(simulator.__path__))) / "data"
VERSIONS: Final = ("0.3.64", "0.8.0")

MODEL_INPUTS: Final = frozenset(
    {
        "ckpt_name", "unet_name", "lora_name", "vae_name", "model_name",
        "clip_name1", "clip_name2", "clip_name3", "control_net_name", "image",
    }
)  # fmt: skip
"""Enumerations whose values are the files of one server: any name will do."""


def object_info(version: str) -> dict[str, Any]:
    """What a real server of that version answered."""
    document: dict[str, Any] = json.loads((_DATA / f"object_info-{version}.json").read_bytes())
    return document


def faults(graph: Mapping[str, Any], info: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with the graph; empty for a valid one."""
    found = [fault for node_id in graph for fault in _of_node(node_id, graph, info)]
    if not any(info.get(node["class_type"], {}).get("output_node") for node in graph.values()):
        found.append("no output node")
    used = {
        value[0] for node in graph.values() for value in node["inputs"].values() if isinstance(value, list)
    }
    for node_id, node in graph.items():
        if node_id not in used and not info.get(node["class_type"], {}).get("output_node"):
            found.append(f"{node_id}: made for nothing")
    return found


def _of_node(node_id: str, graph: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[str]:
    node = graph[node_id]
    described = info.get(node["class_type"])
    if described is None:
        yield f"{node_id}: no class {node['class_type']}"
        return
    required = described["input"].get("required", {})
    known = required | described["input"].get("optional", {})
    for name in required:
        if name not in node["inputs"]:
            yield f"{node_id}: lacks {name}"
    for name, value in node["inputs"].items():
        where = f"{node_id}.{name}"
        if name not in known:
            yield f"{where}: no such input"
            continue
        kind = known[name][0]
        extra = known[name][1] if len(known[name]) > 1 else {}
        if isinstance(value, list):
            yield from _of_link(where, value, kind, graph, info)
        else:
            yield from _of_value(where, name, value, kind, extra)


def _of_link(
    where: str, value: list[Any], kind: Any, graph: Mapping[str, Any], info: Mapping[str, Any]
) -> Iterator[str]:
    source, output = value
    if source not in graph:
        yield f"{where}: no node {source}"
        return
    outputs = info.get(graph[source]["class_type"], {}).get("output", [])
    if output >= len(outputs):
        yield f"{where}: node {source} has no output {output}"
    elif outputs[output] != kind:
        yield f"{where}: {outputs[output]} where {kind} is taken"
    if int(source) >= int(where.split(".", maxsplit=1)[0]):
        yield f"{where}: a link forward"


def _of_value(where: str, name: str, value: Any, kind: Any, extra: Mapping[str, Any]) -> Iterator[str]:
    options = kind if isinstance(kind, list) else extra.get("options") if kind == "COMBO" else None
    if options is not None:
        if name in MODEL_INPUTS:
            if not isinstance(value, str) or not value:
                yield f"{where}: no name of a file"
        elif value not in options:
            yield f"{where}: {value!r} is not in the list"
        return
    wanted = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}.get(kind)
    if wanted is None:
        yield f"{where}: a value where a link of {kind} is taken"
        return
    if type(value) is not wanted:
        yield f"{where}: {type(value).__name__} where {kind} is taken"
        return
    if kind in ("INT", "FLOAT"):
        yield from _of_number(where, value, kind, extra)


def _of_number(where: str, value: Any, kind: str, extra: Mapping[str, Any]) -> Iterator[str]:
    if "min" in extra and value < extra["min"]:
        yield f"{where}: {value} < {extra['min']}"
    if "max" in extra and value > extra["max"]:
        yield f"{where}: {value} > {extra['max']}"
    # ComfyUI checks no steps; for numbers of pixels they are what the node's arithmetic takes.
    if kind == "INT" and "step" in extra and (value - extra.get("min", 0)) % extra["step"]:
        yield f"{where}: {value} is not in steps of {extra['step']}"

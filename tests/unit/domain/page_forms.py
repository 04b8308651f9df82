"""A small writer of the page's form, after the page's own rules, on a raw `/object_info`.

Not on the service's inventory, so that the writer and the reading of it cannot err together.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st
from tests.unit.domain.graph_check import object_info

from comfy_api_service.comfyui.inventory import parse
from comfy_api_service.domain.inventory import Inventory

_VALUES: Final = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


@cache
def recorded(version: str) -> Inventory:
    return parse(object_info(version))


def widened(version: str, classes: Mapping[str, Any]) -> Inventory:
    """The recorded inventory with further classes, given as `/object_info` has them."""
    return parse(object_info(version) | dict(classes)) if classes else recorded(version)


def inputs(described: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(name, type, the rest) in the order of the page."""
    for section in ("required", "optional"):
        for name, spec in described["input"].get(section, {}).items():
            extra = spec[1] if len(spec) > 1 else {}
            if isinstance(spec[0], list):
                yield name, "COMBO", {**extra, "options": spec[0]}
            else:
                yield name, spec[0], extra


def written(graph: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """The graph as the page would save it: a socket for each input, values without names."""
    nodes: list[dict[str, Any]] = []
    links: list[list[Any]] = []
    for node_id, node in graph.items():
        described = info[node["class_type"]]
        slots: list[dict[str, Any]] = []
        values: list[Any] = []
        for name, kind, extra in inputs(described):
            value = node["inputs"].get(name)
            slot: dict[str, Any] = {"name": name, "type": kind, "link": None}
            if isinstance(value, list):
                slot["link"] = len(links) + 1
                links.append([slot["link"], int(value[0]), value[1], int(node_id), len(slots), kind])
            if kind in _VALUES and not extra.get("forceInput"):
                slot["widget"] = {"name": name}
                values.append(None if isinstance(value, list) else value)
                if extra.get("control_after_generate"):
                    values.append("randomize")
            slots.append(slot)
        if any(extra.get("image_upload") or extra.get("video_upload") for _, _, extra in inputs(described)):
            values.append("image")
        nodes.append(
            {
                "id": int(node_id),
                "type": node["class_type"],
                "mode": 0,
                "inputs": slots,
                "outputs": [{"name": kind, "type": kind, "links": []} for kind in described["output"]],
                "properties": {"Node name for S&R": node["class_type"]},
                "widgets_values": values,
            }
        )
    return {"nodes": nodes, "links": links, "groups": [], "config": {}, "extra": {}, "version": 0.4}


def graphs(info: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Graphs of the server's classes: values that their widgets can have, links to what stands before."""
    return st.composite(_graph)(info)


def _graph(draw: st.DrawFn, info: Mapping[str, Any]) -> dict[str, Any]:
    graph: dict[str, Any] = {}
    given: dict[str, list[list[Any]]] = {}
    for number in range(draw(st.integers(1, 8))):
        class_type = draw(st.sampled_from(sorted(info)))
        made: dict[str, Any] = {}
        for name, kind, extra in inputs(info[class_type]):
            sources = [
                *given.get(kind, []),
                *([] if kind != "*" else [one for s in given.values() for one in s]),
            ]
            valued = kind in _VALUES and not extra.get("forceInput")
            if sources and (not valued or draw(st.booleans())):
                made[name] = list(draw(st.sampled_from(sources)))
            elif valued:
                made[name] = draw(_value(kind, extra))
        node_id = str(number + 1)
        graph[node_id] = {"class_type": class_type, "inputs": made}
        for output, kind in enumerate(info[class_type]["output"]):
            named = kind if isinstance(kind, str) else "COMBO"
            given.setdefault(named, []).append([node_id, output])
    return graph


def _value(kind: str, extra: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if kind == "COMBO":
        return st.sampled_from(extra.get("options") or ["a.safetensors", "sub/b.pt"])
    return {
        "INT": st.integers(0, 2**64 - 1),
        "FLOAT": st.floats(-100, 100) | st.integers(-100, 100),
        "STRING": st.text("abc ,.()äß\n🙂", max_size=20),
        "BOOLEAN": st.booleans(),
    }[kind]

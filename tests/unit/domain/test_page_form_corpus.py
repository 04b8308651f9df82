"""The official templates, as the page saved them, against the classes of the recorded servers.

Those have a fifth of a server's classes, and the templates are newer than they are: nearly every template has a
class that they lack. So each is tried as it is, and again without the nodes that the recorded servers cannot have.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import files
from typing import Any, Final

import pytest
from tests.unit.domain.graph_check import VERSIONS, object_info
from tests.unit.domain.page_forms import inputs, recorded

from comfy_api_service.domain.checking import Rules, check_graph
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph.page_document import Reason, reasons
from comfy_api_service.domain.graph.page_form import is_page_form, to_graph
from comfy_api_service.domain.graph.problem import GraphRefused, Problem
from comfy_api_service.domain.node_policy import NodePolicy

TEMPLATES: Final = 640
"""At least as many are there."""
CONVERTED: Final = 7
"""At least as many are converted as they are."""
REDUCED: Final = 555
"""At least as many are converted when nodes that the recorded servers cannot have are taken out."""
_PAGES: Final = frozenset({"Reroute", "PrimitiveNode", "Note", "MarkdownNote"})


@cache
def templates() -> Mapping[str, dict[str, Any]]:
    paths = [path for path in files("comfyui-workflow-templates-json") or () if path.suffix == ".json"]
    documents = {path.name: json.loads(path.read_binary()) for path in paths}
    return {name: document for name, document in documents.items() if is_page_form(document)}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_template_is_converted_or_refused_by_name(version: str) -> None:
    counts = Counter(outcome(name, document, version) for name, document in templates().items())
    assert len(templates()) >= TEMPLATES
    assert counts["converted"] >= CONVERTED, counts


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_recorded_servers_have_of_each_template_is_converted(version: str) -> None:
    info = object_info(version)
    counts = Counter(
        outcome(name, reduced(document, info), version) for name, document in templates().items()
    )
    assert counts["converted"] >= REDUCED, counts
    assert not counts["class"] + counts["subgraph"] + counts["form"] + counts["link"], counts


OF_THE_PLACE: Final = {Code.MODEL_NOT_FOUND, Code.INVALID_INPUT}
"""Models that the server lacks, and files of the author's machine: nothing that the conversion could know."""


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_converted_passes_the_check_but_for_models_and_files(version: str) -> None:
    tried, wrong = 0, {}
    for name, document in templates().items():
        try:
            graph = to_graph(document, recorded(version))
        except GraphRefused:
            continue
        tried += 1
        others = {problem.code for problem in problems(graph, version)} - OF_THE_PLACE
        if others:
            wrong[name] = others
    assert wrong == {}
    assert tried >= CONVERTED


def problems(graph: Mapping[str, Any], version: str) -> Sequence[Problem]:
    try:
        check_graph(graph, recorded(version), Rules(NodePolicy.open()))
    except GraphRefused as refused:
        return refused.problems
    return ()


def outcome(name: str, document: Mapping[str, Any], version: str) -> str:
    """`converted`, or the reasons of the refusal; each names a node."""
    try:
        graph = to_graph(document, recorded(version))
    except GraphRefused as refused:
        fault = refused
    else:
        assert not faults(graph, document, object_info(version)), name
        return "converted"
    named = {str(node["id"]) for node in document["nodes"]}
    assert all(one.node_id in named for one in fault.problems), name
    assert reasons(fault.problems) <= {*Reason}, name
    return " ".join(sorted(reasons(fault.problems)))


def reduced(document: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes of classes that the server has, with the links between them."""
    kept = [node for node in document["nodes"] if node["type"] in info or node["type"] in _PAGES]
    ids = {node["id"] for node in kept}
    links = [link for link in document["links"] if link[1] in ids and link[3] in ids]
    stay = {link[0] for link in links}
    nodes = [
        {
            **node,
            "inputs": [
                {**slot, "link": slot["link"] if slot.get("link") in stay else None}
                for slot in node.get("inputs") or ()
            ],
        }
        for node in kept
    ]
    return {"nodes": nodes, "links": links, "version": document["version"]}


def faults(graph: Mapping[str, Any], document: Mapping[str, Any], info: Mapping[str, Any]) -> list[str]:
    """What is wrong with the form of the graph: a node too few or too many, an input or a link without a target."""
    sent = {
        str(node["id"]) for node in document["nodes"] if node.get("mode", 0) == 0 and node["type"] in info
    }
    found = [f"{node_id}: sent or not" for node_id in sent ^ graph.keys()]
    for node_id, node in graph.items():
        described = {name: (kind, extra) for name, kind, extra in inputs(info[node["class_type"]])}
        for name, value in node["inputs"].items():
            if name not in described:
                found.append(f"{node_id}.{name}: no such input")
            elif isinstance(value, list) and value[0] not in graph:
                found.append(f"{node_id}.{name}: a link to nothing")
        values = {
            name for name, (kind, _) in described.items() if kind in ("INT", "FLOAT", "BOOLEAN", "COMBO")
        }
        found += [f"{node_id}.{name}: lacking" for name in values - node["inputs"].keys()]
    return found

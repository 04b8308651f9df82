"""The check of a whole graph: everything that is wrong with it, at once."""

from collections.abc import Mapping

from comfy_api_service.domain.checking.document import Nodes, read
from comfy_api_service.domain.checking.file_names import FILE_INPUTS
from comfy_api_service.domain.checking.growth import check_growth, check_work
from comfy_api_service.domain.checking.inputs import InputCheck
from comfy_api_service.domain.checking.links import Wiring
from comfy_api_service.domain.checking.rules import Checked, Findings, Rules
from comfy_api_service.domain.checking.text_growth import check_texts
from comfy_api_service.domain.checking.values import Hints
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph import Sizes, output_nodes, requirement_of, work_of
from comfy_api_service.domain.graph.problem import GraphRefused
from comfy_api_service.domain.inventory import Inventory
from comfy_api_service.domain.node_policy import CORE


def check_graph(
    document: object, inventory: Inventory | None, rules: Rules, sizes: Sizes | None = None
) -> Checked:
    """The document as a graph that may be queued, or GraphRefused with every problem at once.

    Without an inventory what needs none is checked: form, size, links, circles, the policy, names of files.
    With one also classes, models, types, bounds and lists, as ComfyUI's own validation does, and stricter
    where it is lax: what it passes and then fails on, or what would lead out of a folder, is refused here.
    Nodes that no output needs are held to form, policy and names of files alone, and left out of the result
    when the inventory tells which nodes give output. `sizes` are those of the callers' pictures, once they are known.
    """
    findings = Findings()
    classes = {} if inventory is None else inventory.classes

    def is_file(class_name: str, input_name: str) -> bool:
        if (class_name, input_name) in FILE_INPUTS:
            return True
        known = classes.get(class_name)
        spec = None if known is None else known.inputs.get(input_name)
        return spec is not None and spec.upload is not None

    nodes = read(document, rules, is_file, findings)
    if nodes is None or not isinstance(document, Mapping):
        raise GraphRefused(findings.problems)
    _check_classes(nodes, inventory, rules, findings)
    wiring = Wiring(nodes)
    outputs = output_nodes(nodes, inventory)
    if not outputs and _can_tell_outputs(nodes, inventory):
        findings.add("no node of the graph gives output")
    needed = set(nodes) if inventory is None or not outputs else wiring.needed_by(outputs)
    inputs = InputCheck(nodes, document.keys(), inventory, rules, findings)
    graph: Nodes = {}
    for node_id, node in nodes.items():
        if node_id in needed:
            graph[node_id] = {"class_type": node["class_type"], "inputs": inputs.node(node_id, node)}
        else:
            inputs.unneeded(node_id, node)
    work = work_of(graph, sizes)
    if wiring.check(rules.max_chain, findings):
        check_growth(graph, wiring, rules, findings)
        check_texts(graph, wiring, rules, findings)
        check_work(graph, work, rules, findings)
    if findings.problems:
        raise GraphRefused(findings.problems)
    return Checked(
        graph=graph,
        requirement=requirement_of(graph),
        files=tuple(inputs.files),
        images=work.pictures,
        pixel_steps=work.pixel_steps,
    )


def _check_classes(nodes: Nodes, inventory: Inventory | None, rules: Rules, findings: Findings) -> None:
    """Finds classes that no backend has, with the nearest that the caller may use, and forbidden ones."""
    hints = Hints()
    for node_id, node in nodes.items():
        name = node["class_type"]
        if inventory is not None and name not in inventory.classes:
            usable = [known for known in inventory.classes if rules.policy.allows(known)]
            findings.add(
                "no backend has this node",
                node_id,
                name,
                code=Code.NODE_NOT_AVAILABLE,
                nearest=hints.nearest(name, usable),
            )
        elif not rules.policy.allows(name):
            findings.add("this node may not be used here", node_id, name, code=Code.NODE_NOT_ALLOWED)


def _can_tell_outputs(nodes: Nodes, inventory: Inventory | None) -> bool:
    known = CORE if inventory is None else inventory.classes.keys()
    return all(node["class_type"] in known for node in nodes.values())

"""Every hostile graph is refused by its code, no legitimate one is, with each inventory and without."""

import json
import re
from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.domain.graph_check import VERSIONS
from tests.unit.domain.graph_corpus import FILES, MODELS, graph_of, hostile, legitimate, rules, stocked
from tests.unit.domain.test_graph import odd_graphs, values

from comfy_api_service.domain.checking import Checked, FileInput, Rules, check_graph
from comfy_api_service.domain.checking.file_names import is_trick
from comfy_api_service.domain.checking.size import count_values
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph import canonical, pictures_in, pixel_steps, requirement_of
from comfy_api_service.domain.graph.problem import ENOUGH, GraphRefused
from comfy_api_service.domain.inventory import InputSpec, Inventory, NodeClass
from comfy_api_service.domain.node_policy import NodePolicy
from comfy_api_service.simulator.inventory import Inventory as SimulatedInventory
from comfy_api_service.simulator.settings import SimulatorSettings
from comfy_api_service.simulator.validation import validate

UPLOAD: Final = "upl_01HZX4T2Q8N3V5B7C9D1F3G5H7"
CORE: Final = Rules(NodePolicy.core())
OPEN: Final = Rules(NodePolicy.open())
SECRETS: Final = re.compile(r"passwd|environ|id_rsa|hostname|win\.ini|secret|169\.254|\.\.")


def base(name: str = "text to image", **changes: Any) -> dict[str, Any]:
    """The legitimate graph, with `node_input=value` changed."""
    graph: dict[str, Any] = graph_of(legitimate()[name])
    for place, value in changes.items():
        node_id, _, key = place.removeprefix("n").partition("_")
        graph[node_id]["inputs"][key] = value
    return graph


def refused(document: object, inventory: Inventory | None = None, by: Rules = CORE) -> GraphRefused:
    with pytest.raises(GraphRefused) as caught:
        check_graph(document, inventory, by)
    return caught.value


def simulated(version: Any) -> SimulatedInventory:
    """The simulator with what `stocked` has."""
    names = [name for listed in FILES.values() for name in listed]
    models = {kind: tuple(listed) for kind, listed in MODELS.items()}
    return SimulatedInventory(SimulatorSettings(protocol=version, models=models), names)


def passes_comfyui(graph: dict[str, Any], version: str) -> bool:
    verdict = validate(json.loads(canonical(graph)), simulated(version), lambda _: True)
    return verdict.error is None and not verdict.node_errors


class TestCorpora:
    def test_are_large_enough(self) -> None:
        assert len(hostile()) >= 300
        assert len({line["class"] for line in hostile().values()}) >= 15
        assert len(legitimate()) >= 100

    @pytest.mark.parametrize("name", hostile())
    @pytest.mark.parametrize("version", [*VERSIONS, None])
    def test_hostile(self, name: str, version: str | None) -> None:
        line = hostile()[name]
        code = line["code"] if version else line.get("blind", line["code"])
        document = graph_of(line)
        inventory = stocked(version) if version else None
        if code is None:
            check_graph(document, inventory, rules(line))
            return
        error = refused(document, inventory, rules(line))
        assert error.code == Code(code), [problem.message for problem in error.problems[:5]]
        told = json.dumps({"message": error.message, "details": error.details})
        assert len(told) < 100_000
        assert not SECRETS.search(told.replace('"../nodes"', "").replace("(../nodes)", ""))

    @pytest.mark.parametrize("name", legitimate())
    @pytest.mark.parametrize("version", [*VERSIONS, None])
    def test_legitimate(self, name: str, version: str | None) -> None:
        line = legitimate()[name]
        graph = graph_of(line)
        inventory = stocked(version) if version else None
        if inventory and any(node["class_type"] not in inventory.classes for node in graph.values()):
            assert refused(graph, inventory, rules(line)).code is Code.NODE_NOT_AVAILABLE
            return
        checked = check_graph(graph, inventory, rules(line))
        assert check_graph(checked.graph, inventory, rules(line)) == checked
        assert checked.requirement == requirement_of(checked.graph)
        assert checked.images == pictures_in(checked.graph)
        assert checked.pixel_steps == pixel_steps(checked.graph)
        if version:
            assert passes_comfyui(checked.graph, version)

    def test_nearly_all_legitimate_classes_are_in_the_recorded_inventories(self) -> None:
        told = Counter(
            node["class_type"] in stocked("0.8.0").classes
            for line in legitimate().values()
            for node in graph_of(line).values()
        )
        assert told[True] > 20 * told[False]


class TestProblems:
    def test_all_are_told_at_once_each_with_its_place(self) -> None:
        graph = base(n3_steps=0, n3_cfg="warm", n4_ckpt_name="v1-5-pruned.safetensors")
        graph["50"] = {"class_type": "KSamplr", "inputs": {}}
        graph["51"] = {"class_type": "LoadImage", "inputs": {"image": "../x.png"}}
        del graph["5"]["inputs"]["width"]
        error = refused(graph, stocked("0.8.0"))
        assert error.code is Code.INVALID_GRAPH
        assert error.details["count"] == 6
        assert {(p.code, p.node_id, p.class_type, p.input) for p in error.problems} == {
            ("INVALID_GRAPH", "3", "KSampler", "steps"),
            ("INVALID_GRAPH", "3", "KSampler", "cfg"),
            ("MODEL_NOT_FOUND", "4", "CheckpointLoaderSimple", "ckpt_name"),
            ("NODE_NOT_AVAILABLE", "50", "KSamplr", None),
            ("INVALID_INPUT", "51", "LoadImage", "image"),
            ("INVALID_GRAPH", "5", "EmptyLatentImage", "width"),
        }

    def test_nearest_names_are_told(self) -> None:
        model = refused(base(n4_ckpt_name="v1-5-pruned.safetensors"), stocked("0.8.0")).problems[0]
        assert model.details["nearest"][0] == "v1-5-pruned-emaonly.safetensors"
        assert model.details["kind"] == "checkpoints"
        graph = base()
        graph["3"]["class_type"] = "KSamplr"
        assert refused(graph, stocked("0.8.0")).problems[0].details["nearest"][0] == "KSampler"

    def test_forbidden_classes_are_no_nearest_names(self) -> None:
        graph = base() | {"50": {"class_type": "LoadLatnt", "inputs": {}}}
        assert "LoadLatent" not in refused(graph, stocked("0.8.0")).problems[0].details["nearest"]

    def test_allowed_values_are_told_twenty_at_most(self) -> None:
        details = refused(base(n3_sampler_name="x"), stocked("0.8.0")).problems[0].details
        assert len(details["allowed"]) == 20
        assert details["allowed_count"] > 20

    def test_a_circle_is_told_by_its_nodes(self) -> None:
        graph = base(n3_latent_image=["50", 0])
        graph["50"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["8", 0], "vae": ["4", 2]}}
        (problem,) = refused(graph, stocked("0.8.0")).problems
        assert set(problem.details["nodes"]) == {"3", "8", "50"}

    def test_a_bound_is_told(self) -> None:
        (problem,) = refused(base(n3_steps=0), stocked("0.8.0")).problems
        assert problem.details == {"value": 0, "bound": 1}
        assert problem.message == "Node 3 (KSampler), steps: 0 is less than 1."

    def test_a_document_has_a_bound_of_values(self) -> None:
        most = CORE.max_values
        graph = base()
        spare = most - count_values(graph, most)
        graph["x"] = {"class_type": "Note", "inputs": {"x": [[]] * (spare - 4)}}
        assert count_values(graph, most) == most
        assert not any("values" in problem.message for problem in refused(graph).problems)
        graph["x"]["inputs"]["x"].append([])
        (problem,) = refused(graph).problems
        assert (problem.code, problem.details) == (Code.INVALID_GRAPH, {"bound": most})

    def test_the_check_ends_when_there_are_enough_problems(self) -> None:
        bad: list[Any] = ["none", 0]
        graph = base()
        for number in range(98):
            inputs = {f"i{index}": bad for index in range(490)}
            graph[f"x{number}"] = {"class_type": "SaveImage", "inputs": inputs}
        assert count_values(graph, 10**6) > CORE.max_values
        by = replace(CORE, max_values=10**6)
        assert len(refused(graph, by=by).problems) == ENOUGH

    def test_a_name_with_marks_in_great_number(self) -> None:
        marks = "\u0301" * 3_000 + "\u0323" * 3_000
        assert not is_trick(f"a{marks}")
        assert is_trick(f"a{marks}\uff0f..")


class TestChecked:
    def test_nothing_but_class_and_inputs_is_kept(self) -> None:
        graph = base("text to image with titles")
        graph["3"]["is_changed"] = ["x"]
        for node in check_graph(graph, None, CORE).graph.values():
            assert node.keys() == {"class_type", "inputs"}

    def test_the_document_is_not_touched(self) -> None:
        graph = base("numbers as texts and the other way round")
        before = canonical(graph)
        checked = check_graph(graph, stocked("0.8.0"), CORE)
        assert canonical(graph) == before
        assert checked.graph["5"]["inputs"] == {"width": 512, "height": 512, "batch_size": 1}
        assert checked.graph["3"]["inputs"]["cfg"] == 7.0
        assert isinstance(checked.graph["3"]["inputs"]["cfg"], float)

    def test_files_are_listed_in_order(self) -> None:
        checked = check_graph(base("inpainting by a mask of its own"), stocked("0.8.0"), CORE)
        assert checked.files == (
            FileInput("1", "image", "image", UPLOAD),
            FileInput("2", "image", "image", "upl_01HZX4T2Q8N3V5B7C9D1F3G5H8"),
        )

    def test_a_plain_name_is_no_file_of_a_caller(self) -> None:
        assert check_graph(base("image to image from a plain name"), stocked("0.8.0"), OPEN).files == ()

    def test_what_no_output_needs_is_left_out(self) -> None:
        checked = check_graph(base("a dangling node that no output needs"), stocked("0.8.0"), CORE)
        assert checked.graph.keys() == base().keys()

    def test_values_that_comfyui_passes_over_are_left_out_of_its_own_classes(self) -> None:
        graph = base("old export: the page's own inputs")
        assert check_graph(graph, stocked("0.8.0"), CORE).graph["1"]["inputs"] == {"image": UPLOAD}

    def test_inputs_that_a_custom_node_does_not_tell_are_kept(self) -> None:
        known = stocked("0.8.0")
        custom = NodeClass("Many", {"image": InputSpec("IMAGE", True)}, ("IMAGE",), output_node=True)
        inventory = Inventory({**known.classes, "Many": custom}, known.models)
        graph = base()
        graph["9"] = {"class_type": "Many", "inputs": {"image": ["8", 0], "image_2": ["8", 0], "x": {"a": 1}}}
        assert check_graph(graph, inventory, OPEN).graph["9"]["inputs"] == graph["9"]["inputs"]

    def test_inputs_that_stand_for_others(self) -> None:
        known = stocked("0.8.0")
        grown = NodeClass(
            "BatchImagesNode", {"images": InputSpec("COMFY_AUTOGROW_V3", True)}, ("IMAGE",), output_node=False
        )
        inventory = Inventory({**known.classes, "BatchImagesNode": grown}, known.models)
        graph = base(n9_images=["20", 0])
        graph["20"] = {"class_type": "BatchImagesNode", "inputs": {"images.image0": ["8", 0]}}
        checked = check_graph(graph, inventory, OPEN)
        assert checked.graph["20"]["inputs"] == {"images.image0": ["8", 0]}

    def test_a_marked_input_of_a_custom_node_takes_files_of_callers(self) -> None:
        known = stocked("0.8.0")
        custom = NodeClass(
            "OpenIt", {"picture": InputSpec("COMBO", True, (), upload="image")}, ("IMAGE",), output_node=False
        )
        inventory = Inventory({**known.classes, "OpenIt": custom}, known.models)
        graph = base(n9_images=["20", 0])
        graph["20"] = {"class_type": "OpenIt", "inputs": {"picture": UPLOAD}}
        checked = check_graph(graph, inventory, Rules(NodePolicy.core(["OpenIt"])))
        assert checked.files == (FileInput("20", "picture", "image", UPLOAD),)
        graph["20"]["inputs"]["picture"] = "../x"
        assert refused(graph, inventory, OPEN).code is Code.INVALID_INPUT

    def test_a_model_in_a_folder_of_windows_is_its_name_there(self) -> None:
        graph = base("two LoRAs, one on the model alone", n10_lora_name="SD15\\windows.safetensors")
        checked = check_graph(graph, stocked("0.8.0"), CORE)
        assert ("loras", "SD15\\windows.safetensors") in {
            (m.kind, m.name) for m in checked.requirement.models
        }

    def test_unions_of_types_fit_by_what_they_share(self) -> None:
        known = stocked("0.8.0")
        union = NodeClass("Either", {"x": InputSpec("IMAGE,MASK", True)}, (), output_node=True)
        inventory = Inventory({**known.classes, "Either": union}, known.models)
        graph = base()
        graph["9"] = {"class_type": "Either", "inputs": {"x": ["8", 0]}}
        check_graph(graph, inventory, OPEN)
        graph["9"]["inputs"]["x"] = ["3", 0]
        assert refused(graph, inventory, OPEN).problems[0].details == {
            "wanted": "IMAGE,MASK",
            "given": "LATENT",
        }

    def test_a_number_without_bounds_has_64_bits(self) -> None:
        known = stocked("0.8.0")
        custom = NodeClass("Count", {"x": InputSpec("INT", True)}, (), output_node=True)
        inventory = Inventory({**known.classes, "Count": custom}, known.models)
        graph: dict[str, Any] = {"1": {"class_type": "Count", "inputs": {"x": "-18446744073709551615"}}}
        assert check_graph(graph, inventory, OPEN).graph["1"]["inputs"] == {"x": -(2**64) + 1}
        graph["1"]["inputs"]["x"] = "9" * 30
        assert refused(graph, inventory, OPEN).code is Code.INVALID_GRAPH

    def test_any_mapping_is_a_document(self) -> None:
        graph = MappingProxyType({key: MappingProxyType(node) for key, node in base().items()})
        assert check_graph(graph, None, CORE) == check_graph(base(), None, CORE)

    def test_a_list_that_the_page_fills_is_not_held_against_a_custom_node(self) -> None:
        known = stocked("0.8.0")
        custom = NodeClass("Pick", {"x": InputSpec("COMBO", True, ())}, (), output_node=True)
        inventory = Inventory({**known.classes, "Pick": custom}, known.models)
        graph = {"1": {"class_type": "Pick", "inputs": {"x": "later"}}}
        check_graph(graph, inventory, OPEN)


LINES: Final = st.sampled_from(sorted(legitimate()))
ODD: Final = values | st.sampled_from(
    [
        UPLOAD,
        "../x",
        "in.png",
        "20",
        "0x10",
        0,
        1,
        -1,
        10**30,
        ["4", 0],
        ["8", 0],
        ["3", True],
        {"__value__": 5},
    ]
)


@st.composite
def changed(draw: st.DrawFn) -> dict[str, Any]:
    """A legitimate graph in which some inputs are something else."""
    graph = base(draw(LINES))
    for _ in range(draw(st.integers(0, 3))):
        node = graph[draw(st.sampled_from(sorted(graph)))]
        keys = sorted(node["inputs"]) or ["x"]
        key = draw(st.sampled_from(keys) | st.sampled_from(["x", "image", "upload"]))
        if draw(st.booleans()):
            node["inputs"][key] = draw(ODD)
        else:
            node["inputs"].pop(key, None)
    return graph


def outcome(document: object, version: str | None, by: Rules) -> Checked | None:
    try:
        checked = check_graph(document, None if version is None else stocked(version), by)
    except GraphRefused:
        return None
    again = check_graph(
        json.loads(canonical(checked.graph)), None if version is None else stocked(version), by
    )
    assert again == checked
    assert canonical(again.graph) == canonical(checked.graph)
    return checked


def test_pictures_count_as_large_as_they_are_once_that_is_known() -> None:
    graph = base("image to image from an upload")
    graph["up"] = {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 0], "upscale_method": "area"}}
    graph["up"]["inputs"]["scale_by"] = 4.0
    graph["end"] = {"class_type": "PreviewImage", "inputs": {"images": ["up", 0]}}
    check_graph(graph, stocked("0.8.0"), CORE, {"1": (4096, 4096)})
    with pytest.raises(GraphRefused) as caught:
        check_graph(graph, stocked("0.8.0"), CORE, {"1": (4097, 4096)})
    assert caught.value.code is Code.COST_LIMIT_EXCEEDED


def test_ordinary_work_with_texts_is_taken_whatever_gives_them() -> None:
    graph = {
        "1": {"class_type": "SomeCaptioner", "inputs": {}},
        "2": {
            "class_type": "StringReplace",
            "inputs": {"string": "a photo of {it}, at dusk", "find": "{it}", "replace": ["1", 0]},
        },
        "3": {"class_type": "StringReplace", "inputs": {"string": ["2", 0], "find": "cat", "replace": "dog"}},
        "4": {
            "class_type": "StringConcatenate",
            "inputs": {"string_a": ["3", 0], "string_b": ["1", 0], "delimiter": ", "},
        },
        "5": {"class_type": "PreviewAny", "inputs": {"source": ["4", 0]}},
    }
    assert check_graph(graph, None, OPEN).graph == graph


class TestProperties:
    @given(odd_graphs | values, st.sampled_from([*VERSIONS, None]), st.sampled_from([CORE, OPEN]))
    def test_nothing_but_a_refusal_is_raised(self, document: Any, version: str | None, by: Rules) -> None:
        outcome(document, version, by)

    @settings(max_examples=400)
    @given(changed(), st.sampled_from([*VERSIONS, None]), st.sampled_from([CORE, OPEN]))
    def test_what_is_accepted_is_accepted_by_comfyui_too(
        self, graph: dict[str, Any], version: str | None, by: Rules
    ) -> None:
        checked = outcome(graph, version, by)
        if checked is not None and version is not None:
            assert passes_comfyui(checked.graph, version)

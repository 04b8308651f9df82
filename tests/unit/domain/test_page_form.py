import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.domain.graph_check import VERSIONS, object_info
from tests.unit.domain.page_forms import graphs, recorded, widened, written

from comfy_api_service.domain.checking import Rules
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph.page_document import MAX_NODES, Reason
from comfy_api_service.domain.graph.page_form import is_page_form, to_graph
from comfy_api_service.domain.graph.page_links import MAX_HOPS, _matching
from comfy_api_service.domain.graph.page_texts import MAX_TEXT, without_comments
from comfy_api_service.domain.graph.problem import ENOUGH, GraphRefused
from comfy_api_service.domain.inventory import InputSpec, Inventory, NodeClass
from comfy_api_service.domain.node_policy import NodePolicy

_DATA: Final = Path(__file__).parents[2] / "data" / "page_forms"
CASES: Final = {path.stem: json.loads(path.read_bytes()) for path in sorted(_DATA.glob("*.json"))}
EXACT: Final = [name for name, case in CASES.items() if "expected" in case]
REFUSED: Final = [name for name, case in CASES.items() if "refused" in case]
NEW: Final = VERSIONS[-1]


def bare(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Without titles."""
    return {node_id: {key: node[key] for key in ("class_type", "inputs")} for node_id, node in graph.items()}


def example(name: str = "text_to_image") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(CASES[name]["workflow"]))
    return document


def node(document: Mapping[str, Any], node_id: int) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in document["nodes"] if one["id"] == node_id)
    return found


def refusal(document: Any, inventory: Inventory | None = None) -> GraphRefused:
    with pytest.raises(GraphRefused) as caught:
        to_graph(document, inventory or recorded(NEW))
    return caught.value


def of_type(kind: str, **marks: Any) -> InputSpec:
    return InputSpec(kind, True, **marks)


def pool(**classes: Mapping[str, InputSpec]) -> Inventory:
    return Inventory({name: NodeClass(name, inputs, ("INT",), True) for name, inputs in classes.items()}, {})


def alone(class_type: str, values: Any, **more: Any) -> dict[str, Any]:
    return {"nodes": [{"id": 1, "type": class_type, "widgets_values": values, **more}], "links": []}


class TestCases:
    """Workflows beside what the page posts for them, or beside the reasons why they are refused."""

    def test_there_are_enough(self) -> None:
        assert len(EXACT) >= 30
        assert len(REFUSED) >= 20
        assert {row[3] for name in REFUSED for row in CASES[name]["refused"]} == {*Reason} - {"size"}

    @pytest.mark.parametrize("name", EXACT)
    @pytest.mark.parametrize("version", VERSIONS)
    def test_exact(self, name: str, version: str) -> None:
        case = CASES[name]
        assert is_page_form(case["workflow"])
        made = to_graph(case["workflow"], widened(version, case.get("classes", {})))
        assert bare(made) == case["expected"]
        assert not is_page_form(made)

    @pytest.mark.parametrize("name", REFUSED)
    @pytest.mark.parametrize("version", VERSIONS)
    def test_refused(self, name: str, version: str) -> None:
        case = CASES[name]
        assert is_page_form(case["workflow"])
        fault = refusal(case["workflow"], widened(version, case.get("classes", {})))
        told = [[one.node_id, one.class_type, one.input, one.details["reason"]] for one in fault.problems]
        assert sorted(told, key=str) == sorted(case["refused"], key=str)
        for one in fault.problems:
            unknown = one.details["reason"] == "class"
            assert one.code is (Code.NODE_NOT_AVAILABLE if unknown else Code.INVALID_GRAPH)


class TestForm:
    @pytest.mark.parametrize(
        "document",
        [
            None,
            [],
            "nodes",
            {},
            {"nodes": {}},
            {"nodes": []},
            {"nodes": {"class_type": "SaveImage", "inputs": {}}},
            {"nodes": [{"class_type": "SaveImage"}], "links": []},
            {"1": {"class_type": "SaveImage", "inputs": {}}},
        ],
    )
    def test_what_is_none(self, document: Any) -> None:
        assert not is_page_form(document)

    def test_what_is_one(self) -> None:
        assert is_page_form(example())
        assert is_page_form({"nodes": [], "links": []})

    def test_titles_are_kept(self) -> None:
        graph = to_graph(example(), recorded(NEW))
        assert graph["7"]["_meta"] == {"title": "$negative"}
        assert "_meta" not in graph["6"]

    def test_the_document_is_left_as_it_is(self) -> None:
        document = example("primitive_seed")
        to_graph(document, recorded(NEW))
        assert document == CASES["primitive_seed"]["workflow"]

    def test_every_problem_is_told_at_once(self) -> None:
        document = example()
        node(document, 3)["widgets_values"] = []
        node(document, 6)["type"] = "Nobody Has This"
        node(document, 5)["mode"] = 3
        fault = refusal(document)
        assert [(one.node_id, one.code) for one in fault.problems] == [
            ("5", Code.INVALID_GRAPH),
            ("6", Code.NODE_NOT_AVAILABLE),
            ("3", Code.INVALID_GRAPH),
        ]
        assert fault.code is Code.INVALID_GRAPH
        assert fault.details["count"] == 3

    def test_problems_show_neither_values_nor_titles(self) -> None:
        document = example("refused_random_words")
        node(document, 6)["title"] = "a secret title"
        node(document, 3)["widgets_values"] = ["a secret value"] * 7
        told = json.dumps(refusal(document).details)
        assert "secret" not in told
        assert "green" not in told


class TestWidgets:
    def test_a_seed_keeps_all_its_digits(self) -> None:
        document = example()
        node(document, 3)["widgets_values"][0] = 2**64 - 1
        assert to_graph(document, recorded(NEW))["3"]["inputs"]["seed"] == 2**64 - 1

    def test_a_pattern_in_a_save_prefix_stays(self) -> None:
        document = example()
        node(document, 9)["widgets_values"] = ["%date:yyyy-MM-dd%/ComfyUI"]
        assert (
            to_graph(document, recorded(NEW))["9"]["inputs"]["filename_prefix"] == "%date:yyyy-MM-dd%/ComfyUI"
        )

    def test_values_by_name(self) -> None:
        document = example()
        node(document, 5)["widgets_values"] = {"batch_size": 2, "width": 512, "height": 768}
        assert bare(to_graph(document, recorded(NEW))) == CASES["text_to_image"]["expected"]

    def test_a_list_with_control_has_a_filter_too(self) -> None:
        inventory = pool(
            Pick={"name": of_type("COMBO", options=("a", "b"), control=True), "n": of_type("INT")}
        )
        made = to_graph(alone("Pick", ["b", "increment-wrap", "", 3]), inventory)
        assert made["1"]["inputs"] == {"name": "b", "n": 3}
        assert refusal(alone("Pick", ["b", "fixed", 3]), inventory).problems[0].details["reason"] == "widgets"

    def test_values_for_inputs_that_once_were_widgets(self) -> None:
        inventory = pool(Old={"text": of_type("STRING", link_only=True), "n": of_type("INT")})
        assert to_graph(alone("Old", ["once a widget", 3]), inventory)["1"]["inputs"] == {"n": 3}
        assert to_graph(alone("Old", [3]), inventory)["1"]["inputs"] == {"n": 3}
        controlled = pool(Old={"text": of_type("STRING", link_only=True), "n": of_type("INT", control=True)})
        assert refusal(alone("Old", ["x", 3, "fixed"]), controlled).problems[0].details["reason"] == "widgets"

    def test_several_choices_are_wrapped(self) -> None:
        inventory = pool(Many={"names": of_type("COMBO", options=("a", "b"))})
        made = to_graph(alone("Many", [["a", "b"]]), inventory)
        assert made["1"]["inputs"] == {"names": {"__value__": ["a", "b"]}}

    def test_a_value_never_becomes_a_link(self) -> None:
        inventory = pool(Many={"names": of_type("COMBO", options=("1",)), "text": of_type("STRING")})
        fault = refusal(alone("Many", [["1", 0], ["1", 0]]), inventory)
        assert [one.input for one in fault.problems] == ["names", "text"]

    def test_numbers_of_lists_are_of_one_type(self) -> None:
        inventory = pool(Pick={"scale": of_type("COMBO", options=(1.5, 2.0))})
        assert to_graph(alone("Pick", [2]), inventory)["1"]["inputs"] == {"scale": 2}
        assert refusal(alone("Pick", ["2"]), inventory).problems[0].input == "scale"

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), True, None, "1", {}])
    def test_what_is_no_number(self, value: Any) -> None:
        fault = refusal(alone("Count", [value]), pool(Count={"n": of_type("INT")}))
        assert fault.problems[0].details["reason"] == "value"

    @pytest.mark.parametrize(
        ("text", "sent"),
        [
            ("a // b", "a "),
            ("a // b\nc", "a \nc"),
            ("a /* b", "a /* b"),
            ("/* a */ b /* c */", " b "),
            (r"\{a\|b\}", "{a|b}"),
            (r"\(a\) \n", r"\(a\) \n"),
            ("a } b | c", "a } b | c"),
            ("{a|b}", None),
            ("{a}", None),
            (r"\\{a}", None),
            ("a\\", None),
            ("// {a|b}", ""),
        ],
    )
    def test_texts_that_the_page_rewrites(self, text: str, sent: str | None) -> None:
        inventory = pool(Text={"text": of_type("STRING", dynamic=True)})
        if sent is None:
            assert refusal(alone("Text", [text]), inventory).problems[0].details["reason"] == "random_text"
        else:
            assert to_graph(alone("Text", [text]), inventory)["1"]["inputs"] == {"text": sent}

    @pytest.mark.parametrize(
        ("text", "left"),
        [
            ("/*/ a", "/*/ a"),
            ("/*/ a */b", "b"),
            ("/* a */ */ b", " */ b"),
            ("/* a // b */ c", " c"),
            ("// a /* b\nc */", "\nc */"),
            ("//* a\n*/ b", "\n*/ b"),
            ("/*// a\u2028b", "/*\u2028b"),
            ("/* a *//* b", "/* b"),
            ("/* " * 350_000, "/* " * 350_000),
            ("/* " * 350_000 + "*/", ""),
            ("/*/" * 350_001, "/*/"),
            ("/" * 1_000_000, ""),
        ],
        ids=range(12),
    )
    def test_comments(self, text: str, left: str) -> None:
        assert without_comments(text) == left

    @given(st.text("/* \n\u2028a", max_size=30))
    def test_comments_are_those_of_the_page(self, text: str) -> None:
        pages = re.compile(r"/\*.*?\*/|//[^\n\r\u2028\u2029]*", re.DOTALL)
        assert without_comments(text) == pages.sub("", text)

    @pytest.mark.parametrize("dynamic", [True, False])
    def test_a_text_has_a_bound(self, dynamic: bool) -> None:
        inventory = pool(Text={"text": of_type("STRING", dynamic=dynamic)})
        assert Rules(NodePolicy.open()).max_text == MAX_TEXT
        text = ("/* " * MAX_TEXT)[:MAX_TEXT]
        assert to_graph(alone("Text", [text]), inventory)["1"]["inputs"] == {"text": text}
        fault = refusal(alone("Text", [text + "a"]), inventory)
        assert fault.problems[0].details["reason"] == "value"

    def test_other_texts_stay(self) -> None:
        inventory = pool(Text={"text": of_type("STRING")})
        text = '{"a|b": 1} // https://example.com'
        assert to_graph(alone("Text", [text]), inventory)["1"]["inputs"] == {"text": text}


class TestBypassed:
    """By which input a link goes on; the types are those of the inputs, in the page's order."""

    @pytest.mark.parametrize(
        ("types", "output", "made", "wanted", "expected"),
        [
            (["A", "B", "A"], 2, "A", "A", 2),
            (["A", "B", "A"], 1, "A", "A", 0),
            (["B", "*", "A"], 0, "A", "A", 2),
            (["B", "*", "C"], 0, "A", "A", 1),
            (["B", "a,c"], 0, "A", "A", 1),
            (["B", "C"], 0, "A", "A", None),
            (["B", "C"], 1, "A", "*", 1),
            (["B", "C"], 5, "A", "*", 0),
            ([], 0, "A", "*", None),
            (["A"], 0, "*", "A", 0),
        ],
    )
    def test_choice(
        self, types: list[str], output: int, made: str, wanted: str, expected: int | None
    ) -> None:
        assert _matching(types, output, made, wanted) == expected


class TestBounds:
    def test_too_many_nodes(self) -> None:
        nodes = [{"id": i, "type": "Note"} for i in range(MAX_NODES + 1)]
        assert refusal({"nodes": nodes, "links": []}).problems[0].details["reason"] == "size"
        assert to_graph({"nodes": nodes[:-1], "links": []}, recorded(NEW)) == {}

    def test_a_long_chain_is_followed_without_recursion(self) -> None:
        assert "clip" in to_graph(chain(1500, 1), recorded(NEW))["c0"]["inputs"]

    def test_many_long_chains_are_refused(self) -> None:
        ends = MAX_HOPS // 1500 + 1
        assert "size" in {one.details["reason"] for one in refusal(chain(1500, ends)).problems}


def chain(length: int, ends: int) -> dict[str, Any]:
    """A loader, `length` reroute nodes, and as many prompts at their end."""
    nodes: list[dict[str, Any]] = [
        {"id": "loader", "type": "CheckpointLoaderSimple", "widgets_values": ["a"]}
    ]
    links: list[list[Any]] = []
    before: tuple[Any, int] = ("loader", 1)
    for number in range(length):
        nodes.append({"id": f"r{number}", "type": "Reroute", "inputs": [{"name": "", "link": len(links)}]})
        links.append([len(links), *before, f"r{number}", 0, "CLIP"])
        before = (f"r{number}", 0)
    for number in range(ends):
        slots = [{"name": "clip", "link": len(links)}]
        nodes.append({"id": f"c{number}", "type": "CLIPTextEncode", "inputs": slots, "widgets_values": ["x"]})
        links.append([len(links), *before, f"c{number}", 0, "CLIP"])
    return {"nodes": nodes, "links": links}


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_writing_and_converting_gives_the_same_graph(version: str, data: st.DataObject) -> None:
    info = object_info_of(version)
    graph = data.draw(graphs(info))
    assert bare(to_graph(json.loads(json.dumps(written(graph, info))), recorded(version))) == graph


_INFO: Final = {version: object_info(version) for version in VERSIONS}


def object_info_of(version: str) -> dict[str, Any]:
    return _INFO[version]


_JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["KSampler", "Reroute", "PrimitiveNode", "Note", "1", "image"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
_NODES: Final = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 3) | _JSON,
            "type": st.sampled_from(["KSampler", "Reroute", "LoraLoader"]) | _JSON,
        },
        optional={
            "mode": st.sampled_from([0, 2, 4]) | _JSON,
            "inputs": st.lists(
                st.fixed_dictionaries(
                    {
                        "name": st.sampled_from(["model", "seed", ""]) | _JSON,
                        "link": st.integers(0, 3) | _JSON,
                    },
                    optional={"widget": _JSON},
                )
            )
            | _JSON,
            "widgets_values": _JSON,
            "properties": _JSON,
            "title": _JSON,
        },
    )
    | _JSON,
    max_size=5,
)
_LINKS: Final = st.lists(
    st.tuples(*[st.integers(0, 3)] * 5, _JSON).map(list) | st.lists(_JSON, max_size=6) | _JSON, max_size=5
)


@given(st.fixed_dictionaries({"nodes": _NODES | _JSON, "links": _LINKS | _JSON}, optional={"extra": _JSON}))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_document_is_converted_or_refused(document: dict[str, Any]) -> None:
    is_page_form(document)
    check_answer(document)


@given(st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_workflow_with_one_wrong_place_is_converted_or_refused(data: st.DataObject) -> None:
    document = example(data.draw(st.sampled_from(EXACT)))
    place: Any = document
    key: Any = data.draw(st.sampled_from(["nodes", "links"]))
    while isinstance(place[key], list | dict) and place[key] and data.draw(st.integers(0, 5)):
        place = place[key]
        key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
    place[key] = data.draw(_JSON)
    check_answer(document)


def check_answer(document: dict[str, Any]) -> None:
    try:
        graph = to_graph(document, recorded(NEW))
    except GraphRefused:
        return
    for one in graph.values():
        links = [value for value in one["inputs"].values() if isinstance(value, list)]
        assert all(len(link) == 2 and link[0] in graph and type(link[1]) is int for link in links)


def test_enough_problems_end_the_reading() -> None:
    links = [[number, 1, 0, 1, 0, "INT"] for number in range(45_000)]
    assert len(refusal(alone("Text", []) | {"links": links}).problems) == ENOUGH
    nodes = [{"id": number, "type": "NoSuchNode"} for number in range(MAX_NODES)]
    assert len(refusal({"nodes": nodes, "links": []}).problems) == ENOUGH

"""Texts of requests: where they stand, and what replaces them."""

from typing import Any

import pytest

from comfy_api_service.domain import texts
from comfy_api_service.domain.generation_request import PROMPT_MAX, GenerationRequest
from comfy_api_service.domain.submission import Source

GRAPH: dict[str, Any] = {
    "1:a": {"class_type": "A", "inputs": {"text": "fog", "also": "fog", "n": 3, "from": ["2", 0]}},
    "2": {"class_type": "B", "inputs": {"a/b~c": {"x": ["one", ["two", 1]]}, "empty": "", "choice": "fog"}},
}


def everything(_node: str, _name: str, _text: str) -> bool:
    return True


def no_choice(_node: str, name: str, _text: str) -> bool:
    return name != "choice"


def test_each_text_of_a_graph_once_by_its_pointer() -> None:
    assert texts.of_graph(GRAPH, None, everything) == {
        "/workflow/1:a/inputs/text": "fog",
        "/workflow/2/inputs/a~1b~0c/x/0": "one",
        "/workflow/2/inputs/a~1b~0c/x/1/0": "two",
    }


def test_an_input_of_a_template_is_the_place_of_its_text() -> None:
    source = Source("wfl_x", 1, {"mood": "fog", "again": "fog", "size": 3, "unused": "nowhere", "kind": ""})
    found = texts.of_graph(GRAPH, source, everything)
    assert found["/inputs/mood"] == "fog"
    assert "nowhere" not in found.values()
    assert list(found.values()).count("fog") == 1


def test_a_text_is_replaced_wherever_it_stands_as_a_text() -> None:
    changed = texts.in_graph(GRAPH, {"fog": "rain", "two": "2"}, no_choice)
    assert changed["1:a"]["inputs"] == {"text": "rain", "also": "rain", "n": 3, "from": ["2", 0]}
    assert changed["2"]["inputs"] == {"a/b~c": {"x": ["one", ["2", 1]]}, "empty": "", "choice": "fog"}
    assert GRAPH["1:a"]["inputs"]["text"] == "fog"
    source = Source("wfl_x", 1, {"mood": "fog", "size": 3})
    assert texts.in_source(source, {"fog": "rain"}).inputs == {"mood": "rain", "size": 3}


def test_a_generation_takes_no_text_that_a_caller_could_not_give() -> None:
    request = GenerationRequest(prompt="fog")
    assert texts.of_generation(request) == {"/prompt": "fog", "/negative_prompt": ""}
    assert texts.in_generation(request, {"/negative_prompt": "rain"}) == request._replace(
        negative_prompt="rain"
    )
    for place, text in (("/prompt", " "), ("/prompt", ""), ("/negative_prompt", "x" * (PROMPT_MAX + 1))):
        with pytest.raises(ValueError, match="empty or too long"):
            texts.in_generation(request, {place: text})

"""The texts that a caller gives in a request: found by where they stand, and replaced.

A place is a JSON Pointer (RFC 6901) into the body of the request: `/prompt`, `/workflow/6/inputs/text`,
`/inputs/prompt`. In a graph equal texts are one text: it is given once, and replaced wherever it stands. Names of
models, of files and of an enumeration's values are not texts.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from comfy_api_service.domain.generation_request import PROMPT_MAX, GenerationRequest
from comfy_api_service.domain.graph.form import Graph, inputs_of, is_link
from comfy_api_service.domain.submission import Source

PROMPT = "/prompt"
NEGATIVE = "/negative_prompt"
Texts = Mapping[str, str]
"""Place → text."""
IsText = Callable[[str, str, str], bool]
"""Whether an input's value is a text: the node's id, the input's name, the value."""


def of_generation(request: GenerationRequest) -> Texts:
    return {PROMPT: request.prompt, NEGATIVE: request.negative_prompt}


def in_generation(request: GenerationRequest, texts: Texts) -> GenerationRequest:
    """With these texts in place of its own. Raises `ValueError` for one that no caller could have given."""
    prompt = texts.get(PROMPT, request.prompt)
    negative = texts.get(NEGATIVE, request.negative_prompt)
    if not prompt.strip() or len(prompt) > PROMPT_MAX or len(negative) > PROMPT_MAX:
        raise ValueError("a prompt is empty or too long")
    return request._replace(prompt=prompt, negative_prompt=negative)


def of_graph(graph: Graph, source: Source | None, is_text: IsText) -> Texts:
    """Each text once, empty ones left out: at the template's input that it came from, else where it first stands."""
    places: dict[str, str] = {}
    for node_id, node in graph.items():
        for name, value in inputs_of(node).items():
            if is_link(value):
                continue
            at = f"/workflow/{_escaped(node_id)}/inputs/{_escaped(name)}"
            for place, text in _strings(value, at):
                if text and text not in places and is_text(node_id, name, text):
                    places[text] = place
    if source is not None:
        named = {
            value: f"/inputs/{_escaped(name)}"
            for name, value in reversed(list(source.inputs.items()))
            if isinstance(value, str)
        }
        places |= {text: place for text, place in named.items() if text in places}
    return {place: text for text, place in places.items()}


def in_graph(graph: Graph, changes: Mapping[str, str], is_text: IsText) -> Graph:
    """With new texts in place of old ones, wherever these stand."""
    changed: dict[str, Mapping[str, Any]] = {}
    for node_id, node in graph.items():

        def new(text: str, name: str, node_id: str = node_id) -> str:
            return changes[text] if text in changes and is_text(node_id, name, text) else text

        inputs = {
            name: value if is_link(value) else _replaced(value, partial(new, name=name))
            for name, value in inputs_of(node).items()
        }
        changed[node_id] = {**node, "inputs": inputs}
    return changed


def in_source(source: Source, changes: Mapping[str, str]) -> Source:
    inputs = {
        name: changes.get(value, value) if isinstance(value, str) else value
        for name, value in source.inputs.items()
    }
    return replace(source, inputs=inputs)


def _strings(value: object, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _strings(one, f"{at}/{index}")
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _strings(one, f"{at}/{_escaped(name)}")


def _replaced(value: object, new: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return new(value)
    if isinstance(value, list):
        return [_replaced(one, new) for one in value]
    if isinstance(value, Mapping):
        return {name: _replaced(one, new) for name, one in value.items()}
    return value


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")

"""What a ComfyUI graph is, in API form, and what it asks of a backend.

A graph maps node ids to `{"class_type", "inputs"}`; an input that is a list `[node_id, output]` is a link.
Nothing here trusts a graph to be well formed: what cannot be understood is passed over, never raised.
"""

from comfy_api_service.domain.graph.attempt import OWN_FOLDER, for_attempt
from comfy_api_service.domain.graph.form import Graph, Link, canonical, is_link, links
from comfy_api_service.domain.graph.kind import kind_of_work
from comfy_api_service.domain.graph.loaders import KINDS, MODEL_SUFFIXES, ModelRef, kind_of, model_of
from comfy_api_service.domain.graph.outputs import OUTPUT_CLASSES, output_nodes
from comfy_api_service.domain.graph.requirement import ANY_REQUIREMENT, Requirement, requirement_of
from comfy_api_service.domain.graph.same import is_same_graph
from comfy_api_service.domain.graph.work import Sizes, Work, pictures_in, pixel_steps, work_of

__all__ = [
    "ANY_REQUIREMENT",
    "KINDS",
    "MODEL_SUFFIXES",
    "OUTPUT_CLASSES",
    "OWN_FOLDER",
    "Graph",
    "Link",
    "ModelRef",
    "Requirement",
    "Sizes",
    "Work",
    "canonical",
    "for_attempt",
    "is_link",
    "is_same_graph",
    "kind_of",
    "kind_of_work",
    "links",
    "model_of",
    "output_nodes",
    "pictures_in",
    "pixel_steps",
    "requirement_of",
    "work_of",
]

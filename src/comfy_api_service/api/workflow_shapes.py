"""Stored workflows as plain JSON values; `schemas/workflows.py` describes what comes out."""

from typing import Any

from comfy_api_service.domain.inventory import Catalogue
from comfy_api_service.domain.templates.template import document_of, parameter_document
from comfy_api_service.domain.times import iso
from comfy_api_service.domain.workflow import Workflow
from comfy_api_service.services.workflows import Inspection, Stored

Shape = dict[str, Any]


def line(one: Workflow, account_id: str) -> Shape:
    return {
        "workflow_id": one.id,
        "name": one.name,
        "description": one.description,
        "version": one.version,
        "ready_made": one.account_id is None,
        "own": one.account_id == account_id,
        "published": one.account_id is None or one.published_at is not None,
        "created_at": iso(one.created_at),
        "updated_at": iso(one.updated_at),
    }


def whole(stored: Stored, account_id: str) -> Shape:
    document = document_of(stored.version.template)
    return {
        **line(stored.workflow, account_id),
        "version": stored.version.number,
        "workflow": document["graph"],
        "parameters": document["parameters"],
        "outputs": document["outputs"],
    }


def inspection(found: Inspection, catalogue: Catalogue) -> Shape:
    return {
        "workflow": found.graph,
        "parameters": [parameter_document(one) for one in found.parameters],
        "outputs": [{"name": output.name, "node": output.node} for output in found.outputs],
        "nodes": [{"class_type": name, "count": count} for name, count in sorted(found.nodes.items())],
        "models": [
            {"kind": one.kind, "name": one.name, "backends": list(catalogue.having(one.kind, one.name))}
            for one in found.models
        ],
        "problems": [
            {
                "code": problem.code,
                "message": problem.message,
                "node_id": problem.node_id,
                "class_type": problem.class_type,
                "input": problem.input,
            }
            for problem in found.problems
        ],
    }

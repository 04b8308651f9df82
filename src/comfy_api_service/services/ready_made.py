"""The workflows that come with the service, read once at the start."""

import json
from collections.abc import Mapping
from importlib import resources

from comfy_api_service.domain.templates.fitting import fitting
from comfy_api_service.domain.templates.template import template_from
from comfy_api_service.domain.workflow import Version, Workflow
from comfy_api_service.services.workflows import Stored

_BORN = 1_767_225_600.0
"""2026-01-01: what stands in the package has no other time."""


def ready_made() -> Mapping[str, Stored]:
    """By id, the name of their file. Raises for a file that is not as it should be: a fault of the package."""
    found = {}
    for file in resources.files("comfy_api_service.domain.templates.ready_made").iterdir():
        name, dot, suffix = file.name.rpartition(".")
        if not dot or suffix != "json":
            continue
        document = json.loads(file.read_text(encoding="utf-8"))
        template = fitting(template_from(document))
        workflow = Workflow(name, None, document["name"], document["description"], 1, _BORN, _BORN, _BORN)
        found[name] = Stored(workflow, Version(1, template, _BORN))
    return dict(sorted(found.items()))

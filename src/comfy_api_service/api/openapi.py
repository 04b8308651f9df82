"""The OpenAPI document: from the routes, with the models of the bodies that the routes parse themselves."""

import functools
from typing import Any, Final

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic.json_schema import models_json_schema

from comfy_api_service.api import state
from comfy_api_service.api.schemas import accounts, admin, events, webhooks, workflows
from comfy_api_service.api.schemas.generate import BatchRequest
from comfy_api_service.api.schemas.submission import GraphJobRequest, JobRequest, TemplateJobRequest

_BODIES: Final = (
    JobRequest,
    GraphJobRequest,
    TemplateJobRequest,
    workflows.WorkflowBody,
    workflows.InspectBody,
    workflows.ExecuteBody,
    BatchRequest,
    webhooks.WebhookRequest,
    webhooks.WebhookChange,
    accounts.Registration,
    accounts.Login,
    accounts.Refresh,
    accounts.KeyRequest,
    admin.UserRequest,
    admin.UserChange,
    admin.UserKeyRequest,
    admin.BackendRequest,
    admin.BackendChange,
)
_EVENTS: Final = (
    events.SnapshotEvent,
    events.QueuedEvent,
    events.RunningEvent,
    events.RequeuedEvent,
    events.ArtifactEvent,
    events.DoneEvent,
    events.ProgressEvent,
    events.PreviewEvent,
)
ASKING: Final = (
    state.known,
    state.caller,
    state.changer,
    state.listener,
    state.submitter,
    state.uploader,
    state.administrator,
)
SECURITY: Final = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`cui_sk_…`"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a login's access token."},
}
DESCRIPTION: Final = """\
Prompt in, picture out: a REST API in front of ComfyUI.

A job goes `queued → running → succeeded | failed | canceled`, is answered for at once, and survives the death
of any process. Follow it by reading it, by Server-Sent Events, or on a WebSocket.

**WebSockets**: `/ws/jobs/{job_id}` (`?last_event_id=`, `?previews=false`) and `/ws/jobs` for all of one's jobs.
Text messages are events, the same JSON objects as in the event stream (see the schemas `…Event`). After an
event `preview` exactly one binary message follows: the picture. Close codes: 1000 after `done`, 4404 no such
job, 1012 the service stops (come back with `last_event_id`), 1008 messages were not taken for 30 seconds,
1013 a part of the service is away, 1011 a fault.

**Errors** are always `{"error": {code, message, details, request_id, timestamp}}`; codes are stable.
"""
TAGS: Final = [
    {"name": "generate", "description": "Submit and wait."},
    {"name": "jobs", "description": "Submit, follow, cancel, fetch."},
    {"name": "events", "description": "What happens to a job, while it happens."},
    {"name": "uploads", "description": "Pictures that jobs begin from."},
    {"name": "workflows", "description": "Stored workflows: graphs with parameters."},
    {"name": "models", "description": "What the backends have."},
    {"name": "auth", "description": "Accounts, sessions and API keys."},
    {"name": "usage", "description": "What was used, and what is left."},
    {"name": "webhooks", "description": "Who is told of jobs, and what became of the telling."},
    {"name": "admin", "description": "For operators; the same answers below `/api/v1/admin`."},
    {"name": "artifacts", "description": "Files behind signed links."},
    {"name": "service", "description": "Name, health, figures."},
]


def document(app: FastAPI) -> dict[str, Any]:
    """The same for the same code; made once an app."""
    if app.openapi_schema is None:
        app.openapi_schema = _made(app)
    return app.openapi_schema


@functools.lru_cache(maxsize=4)
def document_bytes(app: FastAPI) -> bytes:
    return orjson.dumps(document(app))


def _made(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        tags=TAGS,
        routes=app.routes,
        separate_input_output_schemas=False,
    )
    schemas = made["components"]["schemas"]
    for models, mode in ((_BODIES, "validation"), ((*_EVENTS, *webhooks.SENT), "serialization")):
        _, definitions = models_json_schema(
            [(model, mode) for model in models],  # type: ignore[misc]
            ref_template="#/components/schemas/{model}",
        )
        for name, schema in definitions["$defs"].items():
            schemas.setdefault(name, schema)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    made["components"]["securitySchemes"] = SECURITY
    for path in made["paths"].values():
        for operation in path.values():
            _mend(operation)
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            _give_examples(route, made["paths"][route.path_format])
            if needs_credential(route):
                for method in route.methods or ():
                    made["paths"][route.path_format][method.lower()]["security"] = [
                        {"key": []},
                        {"bearer": []},
                    ]
    made["webhooks"] = webhooks.described()
    made["components"]["schemas"] = dict(sorted(schemas.items()))
    return made


def needs_credential(route: APIRoute) -> bool:
    """Whether it asks who calls, once authentication is on."""
    return any(dependency.call in ASKING for dependency in route.dependant.dependencies)


def _mend(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", ()):
        _never_null(parameter)
    content = operation["responses"].get("422", {}).get("content", {}).get("application/json", {})
    if content.get("schema", {}).get("$ref", "").endswith("/HTTPValidationError"):
        del operation["responses"]["422"]  # the framework's guess: a bad id is a 404 here


def _give_examples(route: APIRoute, path: dict[str, Any]) -> None:
    """As they are: the framework leaves out what is null."""
    for status, response in route.responses.items():
        example = response.get("content", {}).get("application/json", {}).get("example")
        for method in route.methods or ():
            if example is not None:
                content = path[method.lower()]["responses"][str(status)]["content"]["application/json"]
                content["example"] = example


def _never_null(parameter: dict[str, Any]) -> None:
    """A parameter is there or not; only in a body is there such a thing as null."""
    schema = parameter["schema"]
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        parameter["schema"] = {**{k: v for k, v in schema.items() if k != "anyOf"}, **kinds[0]}

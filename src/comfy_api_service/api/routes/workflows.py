"""Stored workflows: keep, read, run, look into."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from comfy_api_service.api import cursors
from comfy_api_service.api import workflow_shapes as shapes
from comfy_api_service.api.answers import answer
from comfy_api_service.api.documented import (
    IDEMPOTENCY,
    LOCATION,
    OF_BODIES,
    OF_SUBMISSIONS,
    REPLAYED,
    answers,
    body_of,
    empty,
    errors,
)
from comfy_api_service.api.examples import SUBMITTED
from comfy_api_service.api.parameters import PAGE_DEFAULT, Cursor, Limit, VersionPath, WorkflowPath
from comfy_api_service.api.reading import idempotency_key, parse, read_json
from comfy_api_service.api.routes.jobs import submitted
from comfy_api_service.api.schemas.base import EXAMPLE_TIME
from comfy_api_service.api.schemas.submission import Submitted, TemplateJobRequest
from comfy_api_service.api.schemas.workflows import (
    ExecuteBody,
    InspectBody,
    InspectionAnswer,
    SchemaAnswer,
    VersionList,
    WorkflowAnswer,
    WorkflowBody,
    WorkflowList,
)
from comfy_api_service.api.state import Administrator, Caller, Submitting, actor_of, services_of
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.templates.filling import schema_of
from comfy_api_service.domain.times import iso

PATH: Final = "/api/v1/workflows"
OF_GRAPHS: Final = (
    Code.INVALID_GRAPH,
    Code.INVALID_INPUT,
    Code.NODE_NOT_AVAILABLE,
    Code.NODE_NOT_ALLOWED,
    Code.MODEL_NOT_FOUND,
)
_GRAPH: Final[dict[str, Any]] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 256, "height": 256, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "blue"}},
}
_PARAMETER: Final[dict[str, Any]] = {
    "name": "color",
    "type": "integer",
    "targets": [{"node": "1", "input": "color"}],
    "default": 255,
    "required": False,
    "description": "Red, green and blue in one number.",
    "minimum": 0,
    "maximum": 16777215,
    "choices": None,
    "model_kind": None,
}
_LINE: Final[dict[str, Any]] = {
    "workflow_id": "wfl_0123456789ABCDEFGHJKMNPQRS",
    "name": "One colour",
    "description": "",
    "version": 1,
    "ready_made": False,
    "own": True,
    "published": False,
    "created_at": EXAMPLE_TIME,
    "updated_at": EXAMPLE_TIME,
}
_OUTPUTS: Final = [{"name": "save_image", "node": "2"}]
_WORKFLOW: Final = {**_LINE, "workflow": _GRAPH, "parameters": [_PARAMETER], "outputs": _OUTPUTS}
_BODY: Final = {"name": "One colour", "workflow": _GRAPH, "parameters": [_PARAMETER]}
_INSPECTION: Final[dict[str, Any]] = {
    "workflow": _GRAPH,
    "parameters": [],
    "outputs": _OUTPUTS,
    "nodes": [{"class_type": "EmptyImage", "count": 1}, {"class_type": "SaveImage", "count": 1}],
    "models": [],
    "problems": [],
}
router = APIRouter(tags=["workflows"], default_response_class=Response)


@router.get(
    PATH,
    operation_id="list_workflows",
    summary="Own and published workflows, then those that come with the service",
    responses={
        **answers(200, WorkflowList, "A page.", example={"workflows": [_LINE], "next_cursor": None}),
        **errors(Code.VALIDATION_ERROR),
    },
)
async def list_workflows(
    request: Request, caller: Caller, cursor: Cursor = None, limit: Limit = PAGE_DEFAULT
) -> Response:
    found, following = await services_of(request).workflows.page(
        caller, before=cursors.decode(cursors.WORKFLOWS, cursor), limit=limit
    )
    return answer(
        {
            "workflows": [shapes.line(one, caller.id) for one in found],
            "next_cursor": cursors.encode(cursors.WORKFLOWS, following),
        }
    )


@router.post(
    PATH,
    status_code=201,
    operation_id="create_workflow",
    summary="Store a workflow",
    responses={
        **answers(
            201, WorkflowAnswer, "Its first version.", example=_WORKFLOW, headers={"Location": LOCATION}
        ),
        **errors(*OF_BODIES, *OF_GRAPHS, Code.CONFLICT),
    },
    openapi_extra=body_of(WorkflowBody, _BODY),
)
async def create_workflow(request: Request, caller: Submitting) -> Response:
    given = parse(WorkflowBody, await read_json(request))
    stored = await services_of(request).workflows.add(caller, given.draft())
    return answer(shapes.whole(stored, caller.id), 201, {"Location": f"{PATH}/{stored.workflow.id}"})


@router.post(
    f"{PATH}/inspect",
    operation_id="inspect_workflow",
    summary="What is in a graph; nothing is stored",
    responses={
        **answers(200, InspectionAnswer, "What was found.", example=_INSPECTION),
        **errors(*OF_BODIES),
    },
    openapi_extra=body_of(InspectBody, {"workflow": _GRAPH}),
)
async def inspect_workflow(request: Request, caller: Caller) -> Response:
    given = parse(InspectBody, await read_json(request))
    services = services_of(request)
    found = await services.workflows.inspect(caller, given.workflow)
    return answer(shapes.inspection(found, services.workflows.catalogue))


@router.get(
    f"{PATH}/{{workflow_id}}",
    operation_id="get_workflow",
    summary="A workflow, its latest version",
    responses={**answers(200, WorkflowAnswer, "The workflow.", example=_WORKFLOW), **errors(Code.NOT_FOUND)},
)
async def get_workflow(request: Request, caller: Caller, workflow_id: WorkflowPath) -> Response:
    return answer(shapes.whole(await services_of(request).workflows.get(caller, workflow_id), caller.id))


@router.put(
    f"{PATH}/{{workflow_id}}",
    operation_id="replace_workflow",
    summary="The next version of a workflow",
    responses={
        **answers(200, WorkflowAnswer, "The workflow now.", example=_WORKFLOW),
        **errors(*OF_BODIES, *OF_GRAPHS, Code.NOT_FOUND),
    },
    openapi_extra=body_of(WorkflowBody, _BODY),
)
async def replace_workflow(request: Request, caller: Submitting, workflow_id: WorkflowPath) -> Response:
    """What is the same as the latest version makes none; earlier versions never change."""
    given = parse(WorkflowBody, await read_json(request))
    stored = await services_of(request).workflows.replace(caller, workflow_id, given.draft())
    return answer(shapes.whole(stored, caller.id))


@router.delete(
    f"{PATH}/{{workflow_id}}",
    status_code=204,
    operation_id="delete_workflow",
    summary="Delete a workflow",
    responses={**empty(204, "It is gone; jobs made from it stay."), **errors(Code.NOT_FOUND)},
)
async def delete_workflow(request: Request, caller: Caller, workflow_id: WorkflowPath) -> Response:
    await services_of(request).workflows.delete(caller, workflow_id)
    return Response(status_code=204)


@router.put(
    f"{PATH}/{{workflow_id}}/published",
    status_code=204,
    operation_id="admin_publish_workflow",
    summary="Let all accounts use a workflow",
    responses={**empty(204, "All may see and run it."), **errors(Code.NOT_FOUND)},
)
async def publish_workflow(request: Request, caller: Administrator, workflow_id: WorkflowPath) -> Response:
    """Anybody's; only its owner changes it. For administrators."""
    await services_of(request).workflows.publish(workflow_id, actor_of(request, caller), published=True)
    return Response(status_code=204)


@router.delete(
    f"{PATH}/{{workflow_id}}/published",
    status_code=204,
    operation_id="admin_unpublish_workflow",
    summary="Let only its owner use a workflow",
    responses={**empty(204, "It is its owner's alone."), **errors(Code.NOT_FOUND)},
)
async def unpublish_workflow(request: Request, caller: Administrator, workflow_id: WorkflowPath) -> Response:
    """Jobs that were made from it stay. For administrators."""
    await services_of(request).workflows.publish(workflow_id, actor_of(request, caller), published=False)
    return Response(status_code=204)


@router.get(
    f"{PATH}/{{workflow_id}}/versions",
    operation_id="list_workflow_versions",
    summary="The versions of a workflow, the latest first",
    responses={
        **answers(
            200,
            VersionList,
            "All of them.",
            example={"versions": [{"version": 1, "created_at": EXAMPLE_TIME}], "next_cursor": None},
        ),
        **errors(Code.NOT_FOUND),
    },
)
async def list_workflow_versions(request: Request, caller: Caller, workflow_id: WorkflowPath) -> Response:
    found = await services_of(request).workflows.versions(caller, workflow_id)
    lines = [{"version": number, "created_at": iso(at)} for number, at in found]
    return answer({"versions": lines, "next_cursor": None})


@router.get(
    f"{PATH}/{{workflow_id}}/versions/{{version}}",
    operation_id="get_workflow_version",
    summary="One version of a workflow",
    responses={**answers(200, WorkflowAnswer, "The version.", example=_WORKFLOW), **errors(Code.NOT_FOUND)},
)
async def get_workflow_version(
    request: Request, caller: Caller, workflow_id: WorkflowPath, version: VersionPath
) -> Response:
    stored = await services_of(request).workflows.get(caller, workflow_id, version)
    return answer(shapes.whole(stored, caller.id))


@router.get(
    f"{PATH}/{{workflow_id}}/schema",
    operation_id="get_workflow_schema",
    summary="The JSON Schema of a workflow's inputs",
    responses={
        **answers(
            200,
            SchemaAnswer,
            "JSON Schema, draft 2020-12.",
            example={
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "properties": {"color": {"type": "integer", "default": 255}},
                "required": [],
                "additionalProperties": False,
            },
        ),
        **errors(Code.NOT_FOUND),
    },
)
async def get_workflow_schema(request: Request, caller: Caller, workflow_id: WorkflowPath) -> Response:
    stored = await services_of(request).workflows.get(caller, workflow_id)
    return answer(schema_of(stored.version.template))


@router.post(
    f"{PATH}/{{workflow_id}}/execute",
    status_code=202,
    operation_id="execute_workflow",
    summary="A job from a workflow",
    responses={
        **answers(
            202, Submitted, "The job is on the disk.", example=SUBMITTED, headers={"Location": LOCATION}
        ),
        **answers(
            200,
            Submitted,
            "An earlier request made this job (Idempotency-Key, or `dedupe`).",
            example=SUBMITTED,
            headers={"Location": LOCATION, "Idempotent-Replayed": REPLAYED},
        ),
        **errors(*OF_SUBMISSIONS, Code.NOT_FOUND),
    },
    openapi_extra=body_of(ExecuteBody, {"inputs": {"color": 65280}}, IDEMPOTENCY),
)
async def execute_workflow(request: Request, caller: Submitting, workflow_id: WorkflowPath) -> Response:
    given = parse(ExecuteBody, await read_json(request))
    asked = TemplateJobRequest.model_construct(
        **{name: getattr(given, name) for name in ExecuteBody.model_fields}, workflow_id=workflow_id
    )
    order = asked.order(idempotency_key(request))
    return submitted(request, await services_of(request).submitter.submit(caller, order))

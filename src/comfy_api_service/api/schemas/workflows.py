"""Stored workflows: what is sent, and what comes back."""

from typing import Annotated, Any, Final

from pydantic import Field

from comfy_api_service.api.schemas.base import Answer, Document, Request, Time, Version, WorkflowId
from comfy_api_service.api.schemas.submission import OptionFields
from comfy_api_service.domain.templates import fitting as bounds
from comfy_api_service.domain.templates.template import NamedOutput, Parameter, ParameterType, Target
from comfy_api_service.domain.workflow import DESCRIPTION_MAX, NAME_MAX
from comfy_api_service.services.workflows import Draft

_NODE: Final = 100
ParameterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
NodeId = Annotated[str, Field(min_length=1, max_length=_NODE)]
InputName = Annotated[str, Field(min_length=1, max_length=200)]


class TargetFields(Request):
    """An input of a node."""

    node: NodeId
    input: InputName


class ParameterFields(Request):
    """A value that whoever runs the workflow may give."""

    name: ParameterName
    type: ParameterType
    targets: list[TargetFields] = Field(min_length=1, max_length=bounds.TARGETS_MAX)
    default: str | bool | int | float | None = None
    required: bool = False
    description: str = Field("", max_length=bounds.DESCRIPTION_MAX)
    minimum: int | float | None = None
    maximum: int | float | None = None
    choices: list[str] | None = Field(None, max_length=bounds.CHOICES_MAX, description="Of an `enum`.")
    model_kind: str | None = Field(None, max_length=200, description="Of a `model`: a kind of `GET /models`.")

    def parameter(self) -> Parameter:
        return Parameter(
            name=self.name,
            type=self.type,
            targets=tuple(Target(one.node, one.input) for one in self.targets),
            default=self.default,
            required=self.required,
            description=self.description,
            minimum=self.minimum,
            maximum=self.maximum,
            choices=None if self.choices is None else tuple(self.choices),
            model_kind=self.model_kind,
        )


class OutputFields(Request):
    """A name for what a node gives."""

    name: ParameterName
    node: NodeId


class WorkflowBody(Request):
    """A workflow as it is to be stored."""

    name: str = Field(min_length=1, max_length=NAME_MAX, pattern=r"^[^\x00-\x1f\x7f]+$")
    description: str = Field("", max_length=DESCRIPTION_MAX, pattern=r"^[^\x00]*$")
    workflow: dict[str, Any] = Field(
        min_length=1,
        description="The graph in API form, or as the page saves it where that can be converted exactly.",
    )
    parameters: list[ParameterFields] | None = Field(
        None, max_length=bounds.PARAMETERS_MAX, description="Default: those that are found in the graph."
    )
    outputs: list[OutputFields] | None = Field(
        None,
        max_length=bounds.PARAMETERS_MAX,
        description="Default: each output node by what its class is called.",
    )

    def draft(self) -> Draft:
        parameters, outputs = self.parameters, self.outputs
        return Draft(
            name=self.name,
            description=self.description,
            document=self.workflow,
            parameters=None if parameters is None else tuple(one.parameter() for one in parameters),
            outputs=None if outputs is None else tuple(NamedOutput(one.name, one.node) for one in outputs),
        )


class InspectBody(Request):
    """A graph to look into."""

    workflow: dict[str, Any] = Field(min_length=1)


class ExecuteBody(OptionFields):
    """Values for a workflow's parameters, with the options of a job."""

    version: Version | None = Field(None, description="Default: the latest.")
    inputs: dict[str, Any] = Field(default_factory=dict, max_length=bounds.PARAMETERS_MAX)


class TargetAnswer(Answer):
    node: str
    input: str


class ParameterAnswer(Answer):
    name: str
    type: ParameterType
    targets: list[TargetAnswer]
    default: str | bool | int | float | None
    required: bool
    description: str
    minimum: float | None
    maximum: float | None
    choices: list[str] | None
    model_kind: str | None


class OutputAnswer(Answer):
    name: str
    node: str


class WorkflowLine(Answer):
    """A workflow in a list."""

    workflow_id: WorkflowId
    name: str
    description: str
    version: int = Field(ge=1, description="The latest.")
    ready_made: bool = Field(description="It comes with the service.")
    own: bool
    published: bool
    created_at: Time
    updated_at: Time


class WorkflowAnswer(WorkflowLine):
    """With the graph, the parameters and the outputs of one version."""

    workflow: Document
    parameters: list[ParameterAnswer]
    outputs: list[OutputAnswer]


class WorkflowList(Answer):
    workflows: list[WorkflowLine]
    next_cursor: str | None


class VersionLine(Answer):
    version: int
    created_at: Time


class VersionList(Answer):
    versions: list[VersionLine]
    next_cursor: str | None


class SchemaAnswer(Answer):
    """A JSON Schema."""

    dialect: str = Field(alias="$schema")
    type: str
    properties: Document
    required: list[str]
    additional_properties: bool = Field(alias="additionalProperties")


class NodeCount(Answer):
    class_type: str
    count: int


class ModelNeeded(Answer):
    kind: str
    name: str
    backends: list[str] = Field(description="Those that have it.")


class ProblemAnswer(Answer):
    code: str
    message: str
    node_id: str | None
    class_type: str | None
    input: str | None


class InspectionAnswer(Answer):
    """What is in a graph. `workflow` is its API form; null if it could not be converted."""

    workflow: Document | None
    parameters: list[ParameterAnswer]
    outputs: list[OutputAnswer]
    nodes: list[NodeCount]
    models: list[ModelNeeded]
    problems: list[ProblemAnswer]

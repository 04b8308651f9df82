"""Stored workflows: kept, versioned, published, looked into, and filled for a job."""

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from comfy_api_service.db import audit
from comfy_api_service.db import workflows as rows
from comfy_api_service.db.base import Database, Reader, Tx
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.errors import Code, Conflict, NotFound
from comfy_api_service.domain.families import like
from comfy_api_service.domain.graph import Graph, ModelRef, canonical, output_nodes, requirement_of
from comfy_api_service.domain.graph.form import inputs_of
from comfy_api_service.domain.graph.problem import ENOUGH, GraphRefused, Problem
from comfy_api_service.domain.ids import new_workflow_id
from comfy_api_service.domain.inventory import Catalogue, Inventory
from comfy_api_service.domain.principal import Actor
from comfy_api_service.domain.submission import GraphRequest, Source, TemplateRequest
from comfy_api_service.domain.templates.detecting import detect, titles_of
from comfy_api_service.domain.templates.filling import fill
from comfy_api_service.domain.templates.fitting import fitting
from comfy_api_service.domain.templates.template import (
    NamedOutput,
    Parameter,
    ParameterType,
    Template,
    named_outputs,
)
from comfy_api_service.domain.workflow import Version, Workflow
from comfy_api_service.services.graphs import Graphs, beside_the_loop, inventories_of
from comfy_api_service.services.pool import Pool

MOST: Final = 1000
"""Stored workflows of one account."""
MOST_VERSIONS: Final = 200
"""Of one workflow."""
_ANY_UPLOAD: Final = f"upl_{'0' * 26}"
"""Stands for a picture while a template is checked."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A workflow as its owner wants it. Parameters and outputs that are None are found in the graph."""

    name: str
    description: str
    document: Mapping[str, Any]
    parameters: tuple[Parameter, ...] | None = None
    outputs: tuple[NamedOutput, ...] | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    workflow: Workflow
    version: Version


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a graph; nothing of it is stored."""

    graph: Graph | None
    parameters: tuple[Parameter, ...]
    outputs: tuple[NamedOutput, ...]
    nodes: Mapping[str, int]
    models: tuple[ModelRef, ...]
    problems: tuple[Problem, ...]


class Workflows:
    def __init__(
        self,
        db: Database,
        graphs: Graphs,
        pool: Pool,
        clock: Clock,
        ready_made: Mapping[str, Stored],
        *,
        seed_source: Callable[[], int] = lambda: secrets.randbits(64),
    ) -> None:
        """`ready_made`: those that come with the service, by id."""
        self._db = db
        self._graphs = graphs
        self._pool = pool
        self._clock = clock
        self._ready_made = ready_made
        self._seed_source = seed_source

    # --- kept ------------------------------------------------------------------------------------------

    async def add(self, account: Account, draft: Draft) -> Stored:
        """Raises `GraphRefused`, `ValidationFailed`, `Conflict` for one too many."""
        template = await self._template(account, draft)
        now = self._clock.now()
        made = Workflow(new_workflow_id(), account.id, draft.name, draft.description, 1, None, now, now)

        async def write(tx: Tx) -> None:
            if await rows.count(tx, account.id) >= MOST:
                raise Conflict(f"An account has at most {MOST} workflows; delete one that is not used.")
            await rows.insert(tx, made, template)

        await self._db.write(write)
        return Stored(made, Version(1, template, now))

    async def replace(self, account: Account, workflow_id: str, draft: Draft) -> Stored:
        """The next version; what is the same as the latest makes none. Raises as `add`, and `NotFound`."""
        template = await self._template(account, draft)
        now = self._clock.now()

        async def write(tx: Tx) -> bool:
            held = await rows.hold(tx, account.id, workflow_id)
            if held is None:
                return False
            latest = await rows.version(tx, account.id, workflow_id, None)
            same = latest is not None and latest.template == template
            if not same and held.version >= MOST_VERSIONS:
                raise Conflict(f"A workflow has at most {MOST_VERSIONS} versions; store it as another one.")
            named = replace(held, name=draft.name, description=draft.description)
            await rows.change(tx, named, None if same else template, now)
            return True

        if not await self._db.write(write):
            raise NotFound("workflow")
        return await self.get(account, workflow_id)

    async def publish(self, workflow_id: str, actor: Actor, *, published: bool) -> None:
        """Anybody's, for all accounts, or no more. Raises `NotFound`."""
        now = self._clock.now()

        async def write(tx: Tx) -> bool:
            if not await rows.publish(tx, workflow_id, now if published else None):
                return False
            action = "workflow.publish" if published else "workflow.unpublish"
            await audit.note(tx, actor, action, now=now, target=workflow_id)
            return True

        if not await self._db.write(write):
            raise NotFound("workflow")

    async def delete(self, account: Account, workflow_id: str) -> None:
        if not await self._db.write(lambda tx: rows.delete(tx, account.id, workflow_id)):
            raise NotFound("workflow")

    # --- read ------------------------------------------------------------------------------------------

    async def page(
        self, account: Account, *, before: str | None, limit: int
    ) -> tuple[list[Workflow], str | None]:
        """Own and published ones, newest first, then those that come with the service; and where the next page
        begins.
        """
        found: list[Workflow] = []
        if before is None or before not in self._ready_made:
            found = await self._db.read(lambda tx: rows.page(tx, account.id, before=before, limit=limit + 1))
        after = before if before in self._ready_made else ""
        names = sorted(name for name in self._ready_made if name > (after or ""))
        found += [self._ready_made[name].workflow for name in names[: max(limit + 1 - len(found), 0)]]
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    async def get(self, account: Account, workflow_id: str, number: int | None = None) -> Stored:
        """With this version, or the latest. Raises `NotFound`."""
        ready = self._ready_made.get(workflow_id)
        if ready is not None and number in (None, ready.version.number):
            return ready

        async def read(tx: Reader) -> tuple[Workflow | None, Version | None]:
            return (
                await rows.get(tx, account.id, workflow_id),
                await rows.version(tx, account.id, workflow_id, number),
            )

        workflow, version = await self._db.read(read)
        if workflow is None or version is None:
            raise NotFound("workflow")
        return Stored(workflow, version)

    async def versions(self, account: Account, workflow_id: str) -> list[tuple[int, float]]:
        """Numbers and times, the latest first."""
        ready = self._ready_made.get(workflow_id)
        if ready is not None:
            return [(ready.version.number, ready.version.created_at)]
        found = await self._db.read(lambda tx: rows.versions(tx, account.id, workflow_id))
        if not found:
            raise NotFound("workflow")
        return found

    @property
    def catalogue(self) -> Catalogue:
        """What the pool has now."""
        return self._pool.view.catalogue

    # --- used ------------------------------------------------------------------------------------------

    async def filled(self, account: Account, asked: TemplateRequest) -> GraphRequest:
        """A request for a job. Raises `NotFound`, and `ValidationFailed` with every fault of the inputs."""
        stored = await self.get(account, asked.workflow_id, asked.version)
        done = fill(
            stored.version.template,
            asked.inputs,
            seed_source=self._seed_source,
            any_model=self._any_model,
        )
        return GraphRequest(done.graph, Source(asked.workflow_id, stored.version.number, done.inputs))

    def _any_model(self, kind: str, own: str) -> str | None:
        return like(own, self._pool.view.catalogue.models.get(kind, {}))

    async def inspect(self, account: Account, document: Mapping[str, Any]) -> Inspection:
        """Whatever the graph is like; what is wrong with it is told."""
        try:
            graph = await self._graphs.opened(document)
        except GraphRefused as refused:
            return Inspection(None, (), (), {}, (), refused.problems)
        readable, parameters = await self._found(graph)
        problems: tuple[Problem, ...] = ()
        try:
            sound: Graph = await self._sound(account, graph, parameters)
        except GraphRefused as refused:
            problems, sound = refused.problems, readable

        def told() -> Inspection:
            return Inspection(
                readable,
                parameters,
                named_outputs(sound, output_nodes(sound, self._inventory())),
                Counter(str(node["class_type"]) for node in sound.values()),
                requirement_of(sound).models,
                problems,
            )

        return await beside_the_loop(sound, told)

    # --- the template of a draft -----------------------------------------------------------------------

    async def _template(self, account: Account, draft: Draft) -> Template:
        graph = await self._graphs.opened(draft.document)
        parameters = draft.parameters
        if parameters is None:
            _, parameters = await self._found(graph)
        try:
            graph = await self._sound(account, graph, parameters)
        except GraphRefused as refused:
            others = [one for one in refused.problems if one.code is not Code.MODEL_NOT_FOUND]
            if others or len(refused.problems) >= ENOUGH:
                raise GraphRefused(others or refused.problems) from None
            graph = {  # the models may come later: whoever runs it is told
                node_id: {"class_type": node["class_type"], "inputs": dict(inputs_of(node))}
                for node_id, node in _readable(graph).items()
            }
        outputs = draft.outputs
        if outputs is None:
            outputs = named_outputs(graph, output_nodes(graph, self._inventory()))
        return fitting(Template(graph, parameters, outputs))

    async def _found(self, graph: Graph) -> tuple[Graph, tuple[Parameter, ...]]:
        """What can be read of a graph, and the parameters in it."""

        def find() -> tuple[Graph, tuple[Parameter, ...]]:
            readable = _readable(graph)
            return readable, detect(readable, titles_of(readable), self._inventory())

        return await beside_the_loop(graph, find)

    async def _sound(self, account: Account, graph: Graph, parameters: Sequence[Parameter]) -> Graph:
        """The graph as it may be queued, whatever pictures it names. Raises GraphRefused."""
        prepared = await beside_the_loop(graph, lambda: _with_pictures(graph, parameters))
        return (await self._graphs.check(account, prepared)).graph

    def _inventory(self) -> Inventory | None:
        return next(iter(inventories_of(self._pool.view)), None)


def _readable(graph: Mapping[str, Any]) -> Graph:
    """What can be read, and told, of a graph that was not checked."""
    return {node_id: node for node_id, node in graph.items() if _is_readable(node_id, node)}


def _is_readable(node_id: object, node: object) -> bool:
    if not isinstance(node, Mapping) or not isinstance(node.get("class_type"), str):
        return False
    try:
        canonical({str(node_id): node})
    except ValueError:
        return False
    return True


def _with_pictures(graph: Mapping[str, Any], parameters: Sequence[Parameter]) -> Mapping[str, Any]:
    """With a caller's upload wherever a parameter will put one: the graph's own names are of another machine."""
    targets = {
        (target.node, target.input)
        for parameter in parameters
        if parameter.type is ParameterType.IMAGE
        for target in parameter.targets
    }
    of_nodes = {node_id for node_id, _ in targets}
    return {
        node_id: {
            **node,
            "inputs": {
                name: _ANY_UPLOAD if (node_id, name) in targets else value
                for name, value in inputs_of(node).items()
            },
        }
        if node_id in of_nodes and isinstance(node, Mapping)
        else node
        for node_id, node in graph.items()
    }

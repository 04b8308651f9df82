"""Graphs of callers: from either form to one that some backend of the pool can run, or every reason why none can."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from comfy_api_service.domain.account import Account
from comfy_api_service.domain.backend import BackendState
from comfy_api_service.domain.checking import Checked, Rules, check_graph
from comfy_api_service.domain.checking.size import count_values
from comfy_api_service.domain.errors import Code
from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.graph.page_form import is_page_form, to_graph
from comfy_api_service.domain.graph.problem import GraphRefused, Problem
from comfy_api_service.domain.inventory import Inventory
from comfy_api_service.domain.node_policy import NodePolicy
from comfy_api_service.services.pool import Pool, PoolView
from comfy_api_service.telemetry import Metrics

T = TypeVar("T")
LARGE: Final = 2000
"""JSON values of a document that is looked into beside the loop: some 150 nodes, or a few milliseconds."""
_LETTERS: Final = 50
"""Characters of a text that are as much work as a value."""


async def beside_the_loop(document: Mapping[str, Any], work: Callable[[], T]) -> T:
    """On a thread, if the document is large; what is small is done before a thread would have begun."""
    is_large = count_values(document, LARGE, letters=_LETTERS) > LARGE
    return await asyncio.to_thread(work) if is_large else work()


class Graphs:
    def __init__(self, pool: Pool, rules: Rules, metrics: Metrics) -> None:
        """`rules`: for everybody; tiers may allow more nodes."""
        self._pool = pool
        self._rules = rules
        self._metrics = metrics

    async def check(self, account: Account, document: Mapping[str, Any]) -> Checked:
        """Raises `GraphRefused`. While no inventory is known, what can be checked without one is."""
        try:
            checked = await beside_the_loop(document, lambda: self.check_now(account, document))
        except GraphRefused:
            self._metrics.graphs.labels("refused").inc()
            raise
        self._metrics.graphs.labels("accepted").inc()
        return checked

    async def opened(self, document: Mapping[str, Any]) -> Graph:
        """In API form, not checked. Raises `GraphRefused` for a saved page that cannot be converted exactly."""
        return await beside_the_loop(document, lambda: self._graph_of(document))

    def _graph_of(self, document: Mapping[str, Any]) -> Graph:
        if not is_page_form(document):
            return document
        refused: GraphRefused | None = None
        for inventory in inventories_of(self._pool.view):
            try:
                return to_graph(document, inventory)
            except GraphRefused as fault:
                refused = _milder(refused, fault)
        raise refused or GraphRefused([Problem(Code.INVALID_GRAPH, _NOT_YET)])

    def check_now(self, account: Account, document: Mapping[str, Any]) -> Checked:
        """`check`, on the thread of the caller."""
        rules = self.rules_of(account)
        graph = self._graph_of(document)
        pool = self._pool.view
        known = inventories_of(pool)
        if not known:
            return check_graph(graph, None, rules)
        refused: GraphRefused | None = None
        for inventory in known:
            try:
                return check_graph(graph, inventory, rules)
            except GraphRefused as fault:
                refused = _milder(refused, fault)
        if refused is None:
            raise RuntimeError("neither checked nor refused")
        raise _with_backends(refused, pool)

    def rules_of(self, account: Account) -> Rules:
        policy = self._rules.policy
        extra = account.limits.nodes
        return (
            replace(self._rules, policy=NodePolicy.core(extra))
            if extra and not policy.is_open
            else self._rules
        )


_NOT_YET: Final = (
    "No backend has told of its nodes yet: a workflow saved by the page cannot be converted now."
)


def inventories_of(pool: PoolView) -> list[Inventory]:
    """Each once, of those backends first that are there now."""
    hashes = [
        backend.inventory_hash
        for backend in sorted(pool.backends, key=lambda one: (one.state is not BackendState.ONLINE, one.name))
        if backend.inventory_hash is not None
    ]
    return [pool.inventories[one] for one in dict.fromkeys(hashes) if one in pool.inventories]


def _milder(one: GraphRefused | None, other: GraphRefused) -> GraphRefused:
    """The refusal with fewer problems: that backend is nearest to what is asked."""
    return other if one is None or len(other.problems) < len(one.problems) else one


def _with_backends(refused: GraphRefused, pool: PoolView) -> GraphRefused:
    """With the backends that lack each node and each model that is lacking."""
    known = {
        backend.name: inventory
        for backend in pool.backends
        if (inventory := pool.inventories.get(backend.inventory_hash or "")) is not None
    }
    return GraphRefused([_with_those_that_lack_it(problem, known) for problem in refused.problems])


def _with_those_that_lack_it(problem: Problem, known: Mapping[str, Inventory]) -> Problem:
    """Judged against one inventory it reads as if nobody had it: another may, and lack something else."""
    details = problem.details
    if problem.code is Code.NODE_NOT_AVAILABLE and problem.class_type is not None:
        having = [name for name, inventory in known.items() if problem.class_type in inventory.classes]
    elif problem.code is Code.MODEL_NOT_FOUND:
        having = [
            name for name, inventory in known.items() if details["model"] in _choices(inventory, problem)
        ]
    else:
        return problem
    lacked_by = sorted(known.keys() - set(having))
    message = problem.message
    if having:
        message = message.replace("no backend has", "no backend that has all the rest has")
    return replace(problem, message=message, details={**details, "lacked_by": lacked_by})


def _choices(inventory: Inventory, problem: Problem) -> tuple[Any, ...]:
    """What the input that a problem names may be there."""
    node = inventory.classes.get(problem.class_type or "")
    spec = None if node is None else node.inputs.get(problem.input or "")
    return () if spec is None else spec.options or ()

"""The operator's rules for texts: a list of terms that no request may have, and a hook that may refuse or rewrite.

No message, log line or figure here has anything of a request's texts, or a term of the list.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from typing import Any, Final, Literal

import structlog

from comfy_api_service.domain import texts as places
from comfy_api_service.domain.account import Account
from comfy_api_service.domain.block_list import BlockList
from comfy_api_service.domain.breaker import CLOSED
from comfy_api_service.domain.built_texts import Untellable, built_texts
from comfy_api_service.domain.checking import Checked
from comfy_api_service.domain.errors import Code, Refused, ServiceError, Unavailable
from comfy_api_service.domain.generation_request import GenerationRequest
from comfy_api_service.domain.graph import Graph
from comfy_api_service.domain.graph.loaders import model_of
from comfy_api_service.domain.hook import (
    REFUSED,
    Allow,
    Decision,
    Hook,
    HookAway,
    HookFailed,
    Refuse,
    Rewrite,
    decision_of,
    question,
)
from comfy_api_service.domain.submission import Source
from comfy_api_service.domain.texts import IsText, Texts
from comfy_api_service.services.graphs import Graphs, inventories_of
from comfy_api_service.services.pool import Pool
from comfy_api_service.telemetry import Metrics

RETRY_SECONDS: Final = 5.0
LONG: Final = 100_000
"""Characters of texts that are compared with the list beside the loop."""
OnFailure = Literal["refuse", "allow"]
log = structlog.get_logger()


class PromptRules:
    def __init__(
        self,
        block_list: BlockList | None,
        hook: Hook | None,
        graphs: Graphs,
        pool: Pool,
        metrics: Metrics,
        *,
        timeout: float,
        on_failure: OnFailure,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`timeout`: seconds that an answer of the hook may take. `on_failure`: what becomes of a request that it
        gives no usable answer for. `clock` is monotonic, in seconds.
        """
        self._block_list = block_list
        self._hook = hook
        self._graphs = graphs
        self._pool = pool
        self._metrics = metrics
        self._timeout = timeout
        self._on_failure = on_failure
        self._clock = clock
        self._breaker = CLOSED

    async def generation(self, account: Account, asked: GenerationRequest) -> GenerationRequest:
        """The request as it may run. Raises `Refused` (PROMPT_REFUSED), `Unavailable` if the hook failed."""
        try:
            changes = await self._changes(account, "generation", places.of_generation(asked))
            allowed = places.in_generation(asked, changes) if changes else asked
        except (HookFailed, ValueError) as fault:
            self._hook_failed(fault)
            return asked
        if changes:
            await self._compare(places.of_generation(allowed))
        self._count("rewritten" if changes else "allowed")
        return allowed

    async def graph(
        self, account: Account, checked: Checked, source: Source | None
    ) -> tuple[Checked, Source | None]:
        """As `generation`; a graph that was rewritten is checked again."""
        is_text = self._telling(checked)
        texts, built = places.of_graph(checked.graph, source, is_text), self._built(checked)
        try:
            decided = await self._changes(account, "graph", texts, built)
            changes = {texts[place]: text for place, text in decided.items()}
            if not changes:
                self._count("allowed")
                return checked, source
            allowed = await self._again(account, places.in_graph(checked.graph, changes, is_text))
        except HookFailed as fault:
            self._hook_failed(fault)
            return checked, source
        await self._compare(
            places.of_graph(allowed.graph, None, self._telling(allowed)), self._built(allowed)
        )
        self._count("rewritten")
        return allowed, None if source is None else places.in_source(source, changes)

    async def _changes(self, account: Account, kind: str, texts: Texts, built: Sequence[str] = ()) -> Texts:
        """What the rules put in place of the texts; nothing if they may stay. Raises `Refused`, `HookFailed`."""
        await self._compare(texts, built)
        if self._hook is None:
            return {}
        match await self._decision(self._hook, question(account, kind, texts, built), texts):
            case Refuse(message=message):
                raise self._refusal(message)
            case Rewrite(texts=changed):
                return changed
            case Allow():
                return {}

    async def _compare(self, texts: Texts, built: Sequence[str] = ()) -> None:
        """With the list. Raises `Refused`."""
        listed = self._block_list
        if listed is None:
            return
        found = [*texts.values(), *built]
        long = sum(map(len, found)) > LONG
        if await asyncio.to_thread(_has_any, listed, found) if long else _has_any(listed, found):
            raise self._refusal(REFUSED)

    async def _decision(self, hook: Hook, asked: Mapping[str, Any], texts: Texts) -> Decision:
        """Raises `HookFailed`, at once for a while after it has not answered several times in a row."""
        began = self._clock()
        if not self._breaker.permits(began):
            raise _LeftAlone("it is not asked for a while")
        self._breaker = self._breaker.probe(began)
        try:
            async with asyncio.timeout(self._timeout):
                answer = await hook.ask(asked)
        except (TimeoutError, HookAway) as fault:
            self._breaker = self._breaker.failed(self._clock())
            raise fault if isinstance(fault, HookAway) else HookAway("it did not answer in time") from None
        except HookFailed:
            self._breaker = self._breaker.succeeded()  # it is there, and holds nobody
            raise
        finally:
            self._metrics.hook_duration.observe(self._clock() - began)
        self._breaker = self._breaker.succeeded()
        return decision_of(answer, texts)

    async def _again(self, account: Account, graph: Graph) -> Checked:
        try:
            return await self._graphs.check(account, graph)
        except ServiceError:
            raise HookFailed("the graph that it rewrote is not valid") from None

    def _built(self, checked: Checked) -> Sequence[str]:
        """Raises `Refused`."""
        try:
            return built_texts(checked.graph)
        except Untellable:
            raise self._refusal("Nodes of the graph make texts that cannot be told before it runs.") from None

    def _telling(self, checked: Checked) -> IsText:
        """What tells texts of this graph from names of models, of files, and of values to choose from."""
        files = {(one.node_id, one.input) for one in checked.files}
        inventories = inventories_of(self._pool.view)

        def is_text(node_id: str, name: str, value: str) -> bool:
            if (node_id, name) in files:
                return False
            class_name = checked.graph[node_id]["class_type"]
            specs = [
                spec
                for inventory in inventories
                if (known := inventory.classes.get(class_name)) is not None
                and (spec := known.inputs.get(name)) is not None
            ]
            if not specs:
                return model_of(class_name, name, value) is None
            return any(spec.options is None for spec in specs)

        return is_text

    def _refusal(self, message: str) -> Refused:
        self._count("refused")
        return Refused(Code.PROMPT_REFUSED, message)

    def _hook_failed(self, fault: Exception) -> None:
        """Raises `Unavailable` unless requests go on without the hook."""
        self._count("failed")
        if not isinstance(fault, _LeftAlone):
            log.warning("prompt_hook_failed", reason=str(fault))
        if self._on_failure == "refuse":
            raise Unavailable(
                "The rules for requests cannot be asked now.", retry_after=RETRY_SECONDS
            ) from None

    def _count(self, outcome: str) -> None:
        self._metrics.prompt_rules.labels(outcome).inc()


class _LeftAlone(HookFailed):
    """It was not asked."""


def _has_any(listed: BlockList, texts: Iterable[str]) -> bool:
    return any(listed.has_any(text) for text in texts)

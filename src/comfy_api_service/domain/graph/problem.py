"""What is wrong with a graph: every problem at once, each with the node and input where it stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from comfy_api_service.domain.errors import Code, Refused

MOST: Final = 100
"""Problems that are told; of more, their number is."""
ENOUGH: Final = 1000
"""Problems after which no more are looked for: there may be others, of other codes."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`message` and `details` show no value that could be a prompt or a path."""

    code: Code
    message: str
    node_id: str | None = None
    class_type: str | None = None
    input: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


class GraphRefused(Refused):
    """The code is that of all problems if they share it, else INVALID_GRAPH; `details` has
    `errors: [{code, message, node_id, class_type, input, …}]` and `count`.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        if not problems:
            raise ValueError("a graph is refused for a reason")
        codes = {problem.code for problem in problems}
        count = len(problems)
        message = (
            problems[0].message
            if count == 1
            else f"The graph has {count} problems; the first: {problems[0].message}"
        )
        super().__init__(
            codes.pop() if len(codes) == 1 else Code.INVALID_GRAPH,
            message,
            details={"errors": [_shown(problem) for problem in problems[:MOST]], "count": count},
        )
        self.problems = tuple(problems)


def _shown(problem: Problem) -> dict[str, Any]:
    return {
        "code": problem.code,
        "message": problem.message,
        "node_id": problem.node_id,
        "class_type": problem.class_type,
        "input": problem.input,
        **problem.details,
    }

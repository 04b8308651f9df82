from typing import Any

import pytest

from comfy_api_service.cli.client.refusals import lines_of


@pytest.mark.parametrize(
    ("details", "lines"),
    [
        ({}, ()),
        ({"errors": "none"}, ()),
        ({"errors": [{"field": "steps", "message": "is too much"}]}, ("steps: is too much",)),
        (
            {
                "errors": [
                    {"code": "X", "node_id": "4", "class_type": "KSampler", "input": "cfg", "message": "no"},
                    {"code": "X", "node_id": "5", "class_type": None, "input": None, "message": "no"},
                    {"code": "X", "node_id": None, "class_type": None, "input": None, "message": "no"},
                    {"input": "upl_1", "message": "There is no such upload."},
                ],
                "count": 9,
            },
            (
                "Node 4 (KSampler), cfg: no",
                "Node 5: no",
                "X: no",
                "upl_1: There is no such upload.",
                "and 5 more",
            ),
        ),
        (
            {"errors": [{"node_id": "4", "class_type": "X", "input": "a", "message": "Node 4 (X), a: no."}]},
            ("Node 4 (X), a: no.",),
        ),
        (
            {"errors": [{"node_id": "1", "message": "no", "nearest": ["a", "b"]}], "nearest": ["c"]},
            ("Node 1: no (nearest: a, b)", "nearest: c"),
        ),
    ],
)
def test_each_problem_is_a_line(details: dict[str, Any], lines: tuple[str, ...]) -> None:
    assert lines_of(details) == lines

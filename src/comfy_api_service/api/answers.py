"""Answers: JSON bytes straight from plain values. Their models are for the documentation and its tests."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from starlette.responses import Response

JSON: Final = "application/json"


def dumps(content: Any) -> bytes:
    return orjson.dumps(content)


def answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, JSON)

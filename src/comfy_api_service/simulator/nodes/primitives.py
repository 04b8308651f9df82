"""Plain values, and the node that shows any value as text."""

import json
from typing import Any

from comfy_api_service.simulator.values import Result

from .base import Call, Outputs, node


@node("PrimitiveString", "PrimitiveInt", "PrimitiveFloat")
def primitive(call: Call) -> Outputs:
    return (call.inputs.get("value"),)


@node("PreviewAny")
def preview_any(call: Call) -> Result:
    return Result((), {"text": [_shown(call.inputs.get("source"))]})


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float, bool)) or value is None:
        return str(value)
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return str(value)

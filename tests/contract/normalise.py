"""What may differ between a recording and the simulator, and why. Everything else has to be equal.

Applied to both sides:

- moments (`timestamp`, `create_time`, `execution_start_time`, `execution_end_time`): another day;
- the order of `executed` and `current_outputs` in errors, of the outputs to execute (fifth part of a prompt),
  of `errors` of one node: the real server iterates over sets of strings there, so their order changes from
  process to process;
- the text of a tensor in `current_inputs`: its numbers, cut by PyTorch;
- the five random letters in the names of temporary pictures;
- of the machine: memory sizes, versions of Python and PyTorch;
- `output_tooltips` of nodes, which the recorded object_info has been freed of;
- sizes of pictures: another encoder.

JSON is compared by value and type: 1 is not 1.0. The order of keys means nothing.
"""

import re
from typing import Any

MOMENTS = frozenset({"timestamp", "create_time", "execution_start_time", "execution_end_time"})
SETS = frozenset({"executed", "current_outputs"})
MACHINE = frozenset(
    {
        "ram_total",
        "ram_free",
        "vram_total",
        "vram_free",
        "torch_vram_total",
        "torch_vram_free",
        "python_version",
        "pytorch_version",
    }
)
DROPPED = frozenset({"output_tooltips"})
TEMPORARY = re.compile(r"ComfyUI_temp_[a-z]{5}_")


def normal(value: Any, key: str = "") -> Any:
    """The value without what may differ."""
    if key in MOMENTS or key in MACHINE:
        return f"<{type(value).__name__}>"
    if isinstance(value, dict):
        return {k: normal(v, k) for k, v in value.items() if k not in DROPPED}
    if isinstance(value, list):
        return _normal_list(value, key)
    if isinstance(value, str):
        value = TEMPORARY.sub("ComfyUI_temp_*****_", value)
        return "tensor(...)" if value.startswith("tensor(") else value
    return (type(value).__name__, value)


def _normal_list(value: list[Any], key: str) -> Any:
    if key in SETS:
        return sorted(value)
    if key == "errors":
        return sorted((normal(v) for v in value), key=repr)
    if len(value) == 5 and isinstance(value[3], dict) and isinstance(value[4], list):
        return [*(normal(v) for v in value[:4]), sorted(value[4])]
    return [normal(v) for v in value]


def frame(event: dict[str, Any]) -> Any:
    """A frame of the socket, recorded or seen."""
    if event["type"] == "binary":
        return ("binary", event["event"], event["head"])
    return (event["type"], normal(event.get("data")))


def answer(event: dict[str, Any]) -> Any:
    """An HTTP answer. Of the headers those that a client goes by; JSON is spaced otherwise: no length."""
    if "status" not in event:
        return event["type"]
    headers = {k: v for k, v in event["headers"].items() if k in {"Content-Type", "Content-Disposition"}}
    body = event["body"]
    if isinstance(body, str) and body.endswith("binary characters>"):
        body = "<binary>"
    return (event["method"], event["path"], event["status"], headers, normal(body))

"""Tables: columns in a terminal, tabs between the cells in a pipe."""

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api_service.cli.output import stderr, stdout

HEAD = ("parameter", "type", "default", "bounds", "sets", "what it is")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, on_stderr: bool = False) -> None:
    """In a terminal nothing is cut off, and columns without a word are left out."""
    console = stderr() if on_stderr else stdout()
    if not console.is_terminal:
        for row in rows:
            print("\t".join(" ".join(cell.split()) for cell in row), file=console.file)
        return
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = [n for n, _ in enumerate(head) if any(row[n] for row in rows)]
    made = Table(box=None, pad_edge=False)
    for n in shown:
        made.add_column(head[n], overflow="fold", no_wrap=n == 0)  # names and ids are copied
    for row in rows:
        made.add_row(*(Text(row[n]) for n in shown))
    console.soft_wrap = False
    console.print(made)


def parameter_row(one: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        str(one["name"]),
        _type(one),
        _default(one),
        _bounds(one),
        ", ".join(f"{target['node']}.{target['input']}" for target in one.get("targets") or ()),
        str(one.get("description") or ""),
    )


def _type(one: Mapping[str, Any]) -> str:
    return f"{one['type']} ({one['model_kind']})" if one.get("model_kind") else str(one["type"])


def _default(one: Mapping[str, Any]) -> str:
    default = one.get("default")
    if default is None:
        if one.get("required"):
            return "required"
        return {"seed": "random", "model": "by family"}.get(str(one["type"]), "as in the graph")
    if isinstance(default, bool):
        return str(default).lower()
    return _number(default) if isinstance(default, float) else str(default) or "empty"


def _bounds(one: Mapping[str, Any]) -> str:
    if one.get("choices"):
        choices = [str(choice) for choice in one["choices"]]
        return ", ".join(choices[:6]) + (f", … ({len(choices)})" if len(choices) > 6 else "")
    low, high = one.get("minimum"), one.get("maximum")
    if low is None and high is None:
        return ""
    return f"{_number(low)}…{_number(high)}"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.15g}" if isinstance(value, float) else str(value)

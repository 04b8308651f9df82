"""`backends list|add|drain|resume|remove`: the pool's ComfyUI servers, straight in the service's database."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from comfy_api_service.cli.configuration import effective
from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.options import AsJson
from comfy_api_service.cli.output import as_json_text, examples, run, say, stdout
from comfy_api_service.domain.principal import SHELL
from comfy_api_service.domain.urls import without_password

if TYPE_CHECKING:
    from comfy_api_service.domain.backend import Backend
    from comfy_api_service.services.backends import Backends
    from comfy_api_service.settings import Settings

T = TypeVar("T")
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="List, add, drain and remove ComfyUI servers while the service runs.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="As `list` shows it.", show_default=False)]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of an SQLite database.  [dim]\\[DATA_DIR, ./data][/dim]")
]


@app.command(
    "list",
    epilog=examples("comfy-api backends list", "comfy-api backends list --json | jq '.backends[].state'"),
)
def list_backends(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the ComfyUI servers, with who may drive them and how they are."""
    listed, driven = _with(data_dir, lambda backends: backends.all())
    rows = [_facts(backend, driven=backend.id in driven) for backend in listed]
    if as_json:
        print(as_json_text({"backends": rows}))
        return
    if not rows:
        say("no ComfyUI servers")
        return
    from rich.table import Table  # noqa: PLC0415 - loaded when there is something to show

    table = Table(box=None, pad_edge=False)
    for column in ("name", "state", "driven", "version", "model", "url"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            row["name"], row["state"], "yes" if row["driven"] else "no", row["version"] or "", row["model"] or "",
            row["url"],
        )  # fmt: skip
    stdout().print(table)


@app.command(epilog=examples("comfy-api backends add http://gpu3:8188"))
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="Its address.", show_default=False)],
    data_dir: DataDir = None,
) -> None:
    """Put a ComfyUI server on the list; a worker that can reach it takes it within a second or two."""
    (checked,) = effective(comfyui_url=(url,)).comfyui_url
    backend = _with(data_dir, lambda backends: backends.add(checked, SHELL))
    stdout().print(f"{backend.name} is on the list", markup=False)


@app.command(epilog=examples("comfy-api backends drain comfyui-2"))
def drain(name: Name, data_dir: DataDir = None) -> None:
    """Give a ComfyUI server no more work; what it has ends there."""
    _with(data_dir, lambda backends: backends.set_draining(name, True, SHELL))
    stdout().print(f"{name} gets no more work", markup=False)


@app.command(epilog=examples("comfy-api backends resume comfyui-2"))
def resume(name: Name, data_dir: DataDir = None) -> None:
    """Give a drained ComfyUI server work again."""
    _with(data_dir, lambda backends: backends.set_draining(name, False, SHELL))
    stdout().print(f"{name} gets work", markup=False)


@app.command(epilog=examples("comfy-api backends remove comfyui-2"))
def remove(name: Name, data_dir: DataDir = None) -> None:
    """Take a ComfyUI server off the list, once what it has has ended.

    A worker whose settings name it puts it back when it starts again.
    """
    _with(data_dir, lambda backends: backends.remove(name, SHELL))
    stdout().print(f"{name} is off the list", markup=False)


def _facts(backend: "Backend", *, driven: bool) -> dict[str, Any]:
    return {
        "name": backend.name,
        "state": backend.state.value if driven else "offline",
        "draining": backend.draining,
        "driven": driven,
        "version": backend.version,
        "model": backend.resident_model,
        "url": without_password(backend.url),
        "added_by": "operator" if backend.manual else "settings",
    }


def _with(data_dir: Path | None, act: "Callable[[Backends], Coroutine[Any, Any, T]]") -> T:
    settings = effective(data_dir=data_dir)
    from comfy_api_service.cli.starting import start_faults  # noqa: PLC0415
    from comfy_api_service.domain.errors import NotFound, Unavailable  # noqa: PLC0415

    async def work() -> T:
        async with _opened(settings) as backends:
            return await act(backends)

    with start_faults(settings):
        try:
            return run(work())
        except NotFound:
            raise Fault("There is no such ComfyUI server.", "`comfy-api backends list` names them.") from None
        except Unavailable as error:
            raise Fault(f"The database cannot be used: {error}", "`comfy-api doctor` says more.") from None


@asynccontextmanager
async def _opened(settings: "Settings") -> "AsyncIterator[Backends]":
    from comfy_api_service.bootstrap import parts  # noqa: PLC0415 - loads what all roles stand on

    async with parts.backends(settings) as backends:
        yield backends

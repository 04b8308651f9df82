"""`jobs list|show|watch|cancel|save`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comfy_api_service.cli.options import DEFAULT_SERVER, ApiKey, AsJson, Server
from comfy_api_service.cli.output import as_json_text, examples, run, say, stdout
from comfy_api_service.domain.job import Status

if TYPE_CHECKING:
    from comfy_api_service.cli.client.api import Api

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="List, follow and cancel jobs.")

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id, job_…", show_default=False)]


@app.command(
    "list",
    epilog=examples("comfy-api jobs list", "comfy-api jobs list --status running --status queued --json"),
)
def list_jobs(
    status: Annotated[list[Status] | None, typer.Option(help="Only these; may be repeated.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="The newest so many.")] = 20,
    as_json: AsJson = False,
    server: Server = DEFAULT_SERVER,
    api_key: ApiKey = None,
) -> None:
    """List your jobs, newest first."""
    jobs = run(_list(server, api_key, limit, {"status": [one.value for one in status]} if status else {}))
    if as_json:
        print(as_json_text({"jobs": jobs}))
        return
    if not jobs:
        say("no jobs")
        return
    _table(jobs)


async def _list(
    server: str, api_key: str | None, limit: int, filters: Mapping[str, Any]
) -> list[Mapping[str, Any]]:
    async with _api(server, api_key) as api:
        return await api.jobs(limit=limit, filters=filters)


@app.command(epilog=examples("comfy-api jobs show job_01h…", "comfy-api jobs show job_01h… --json"))
def show(
    job_id: JobId, as_json: AsJson = False, server: Server = DEFAULT_SERVER, api_key: ApiKey = None
) -> None:
    """Show one job."""
    job = run(_show(server, api_key, job_id))
    if as_json:
        print(as_json_text(job))
        return
    for name, value in _facts(job):
        stdout().print(f"{name:<14} {value}", markup=False)


async def _show(server: str, api_key: str | None, job_id: str) -> Mapping[str, Any]:
    async with _api(server, api_key) as api:
        return await api.job(job_id)


@app.command(epilog=examples("comfy-api jobs watch job_01h…"))
def watch(
    job_id: JobId,
    preview: Annotated[
        bool,
        typer.Option(
            help="Show how the picture comes about, in terminals that can (kitty, ghostty, WezTerm, iTerm2)."
        ),
    ] = True,
    as_json: AsJson = False,
    server: Server = DEFAULT_SERVER,
    api_key: ApiKey = None,
) -> None:
    """Follow a job to its end, live. Ctrl-C leaves it running. Exit code 1 if it fails or is canceled."""
    run(_watch(server, api_key, job_id, preview=preview, as_json=as_json))


async def _watch(server: str, api_key: str | None, job_id: str, *, preview: bool, as_json: bool) -> None:
    from comfy_api_service.cli.client.bars import bar  # noqa: PLC0415
    from comfy_api_service.cli.client.making import follow, succeeded  # noqa: PLC0415

    async with _api(server, api_key) as api:
        await api.job(job_id)
        with bar(previews=preview) as shown:
            job = await follow(api, job_id, shown)
    if as_json:
        print(as_json_text(job))
    succeeded(job)
    if not as_json:
        print(f"{job_id} succeeded")


@app.command(epilog=examples("comfy-api jobs cancel job_01h…"))
def cancel(
    job_id: JobId,
    wait: Annotated[bool, typer.Option(help="Wait until it has ended.")] = True,
    server: Server = DEFAULT_SERVER,
    api_key: ApiKey = None,
) -> None:
    """Cancel a job. A running one ends at its next step; what is committed first wins."""
    print(run(_cancel(server, api_key, job_id, wait=wait)))


async def _cancel(server: str, api_key: str | None, job_id: str, *, wait: bool) -> str:
    from comfy_api_service.cli.client.bars import bar  # noqa: PLC0415
    from comfy_api_service.cli.client.making import TERMINAL, follow  # noqa: PLC0415

    async with _api(server, api_key) as api:
        job = await api.cancel(job_id)
        if job.get("status") not in TERMINAL and wait:
            with bar() as shown:
                job = await follow(api, job_id, shown)
    status = str(job.get("status"))
    return f"{job_id} {status if status in TERMINAL else 'is being canceled'}"


@app.command(epilog=examples("comfy-api jobs save job_01h… -o fox.png"))
def save(
    job_id: JobId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where; default: JOB.png, here.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace files that are there.")] = False,
    server: Server = DEFAULT_SERVER,
    api_key: ApiKey = None,
) -> None:
    """Save the files of a job that succeeded."""
    for path in run(_save(server, api_key, job_id, output, force=force)):
        print(path)


async def _save(
    server: str, api_key: str | None, job_id: str, output: Path | None, *, force: bool
) -> Sequence[Path]:
    from comfy_api_service.cli.client.making import Made, succeeded  # noqa: PLC0415

    async with _api(server, api_key) as api:
        made = Made(api, succeeded(await api.job(job_id)))
        return await made.save(output, force=force)


def _api(server: str, api_key: str | None) -> "Api":
    from comfy_api_service.cli.client.api import Api  # noqa: PLC0415 - loads the HTTP client

    return Api(server, api_key)


def _table(jobs: Sequence[Mapping[str, Any]]) -> None:
    """Columns in a terminal, tabs in a pipe."""
    console = stdout()
    rows = [
        (
            str(job.get("job_id", "")),
            _state(job),
            _when(job.get("queued_at")),
            " ".join(_what(job.get("params") or {}).split()),
        )
        for job in jobs
    ]
    if not console.is_terminal:
        for row in rows:
            print("\t".join(row))
        return
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table("job", "status", "queued at", "what", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    table.columns[3].no_wrap = True
    table.columns[3].overflow = "ellipsis"
    console.soft_wrap = False
    console.print(table)


def _what(params: Mapping[str, Any]) -> str:
    """The prompt, or which workflow it is and its prompt, if it has one."""
    inputs = params.get("inputs") or {}
    words = (params.get("prompt"), params.get("workflow_id"), inputs.get("prompt"))
    return " ".join(str(word) for word in words if word) or ("a graph" if "workflow" in params else "")


def _state(job: Mapping[str, Any]) -> str:
    status = "canceling" if job.get("canceling") else str(job.get("status", ""))
    progress = job.get("progress")
    return f"{status} {progress:.0f} %" if status == "running" and progress else status


def _facts(job: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("job", str(job.get("job_id", ""))), ("status", _state(job))]
    facts += [
        (name.removesuffix("_at"), _when(job[name]))
        for name in ("queued_at", "started_at", "finished_at")
        if job.get(name) is not None
    ]
    facts += [
        (name.replace("_", " "), str(job[name]))
        for name in ("queue_position", "backend", "attempts")
        if job.get(name) is not None
    ]
    facts += [
        (name, str(value)) for name, value in (job.get("params") or {}).items() if value not in (None, [], "")
    ]
    error = job.get("error")
    if error:
        facts.append(("error", f"{error.get('code')}: {error.get('message')}"))
    for artifact in (job.get("result") or {}).get("artifacts") or ():
        size = f"{artifact.get('width')}×{artifact.get('height')}" if artifact.get("width") else ""
        facts.append(("file", f"{artifact.get('media_type')} {size} {artifact.get('url')}"))
    return facts


def _when(value: object) -> str:
    """A time as the API gives it (ISO text, or seconds since the epoch), shown in local time."""
    if isinstance(value, int | float):
        moment = datetime.fromtimestamp(value, UTC)
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return value
    else:
        return ""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")

"""`workflows run`: a stored workflow with parameters as options and files as paths."""

import asyncio
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comfy_api_service.cli.client import generate as simple
from comfy_api_service.cli.client.given import META, Given, explicit, inputs_from, options_of
from comfy_api_service.cli.options import DEFAULT_SERVER, ApiKey, AsJson, Server
from comfy_api_service.cli.output import as_json_text, examples, run, say

if TYPE_CHECKING:
    from comfy_api_service.cli.client.api import Api
    from comfy_api_service.cli.client.making import Made

EXAMPLES = examples(
    'comfy-api workflows run text-to-image-sd15 --prompt "a lighthouse" --steps 20 -o lighthouse.png',
    'comfy-api workflows run image-to-image --image photo.jpg --prompt "in winter" --strength 0.5',
    'comfy-api workflows run wfl_01h… --version 2 --negative-prompt="--" --param priority=high -o pictures/',
    'comfy-api workflows run wfl_01h… --prompt "a fox" --no-wait',
)
WorkflowId = Annotated[
    str,
    typer.Argument(
        metavar="WORKFLOW",
        help="Its id, wfl_…, or the name of one that comes with the service.",
        show_default=False,
    ),
]


def run_workflow(
    ctx: typer.Context,
    workflow_id: WorkflowId,
    version: Annotated[
        int | None, typer.Option(min=1, help="Default: the latest.", show_default=False)
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", "-p", metavar="NAME=VALUE", help="A parameter whose name is an option of this command."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|DIR/",
            help="Where to save; several files: FILE_1 …; default: JOB.png, here. Its suffix chooses the format.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace files that are there.")] = False,
    wait: Annotated[bool, typer.Option(help="Follow it and save its files; else print the job's id.")] = True,
    preview: Annotated[
        bool,
        typer.Option(
            help="Show the picture, and how it comes about, in terminals that can (kitty, ghostty, WezTerm, iTerm2)."
        ),
    ] = True,
    priority: Annotated[int | None, typer.Option(min=-10, max=10, help="Among your own jobs.")] = None,
    deadline: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="Fail if not ready by then.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")] = None,
    as_json: AsJson = False,
    server: Server = DEFAULT_SERVER,
    api_key: ApiKey = None,
) -> None:
    """Run a workflow, follow its progress, and save what it makes. Ctrl-C and SIGTERM cancel the job.

    Its parameters are options, `--prompt "a fox" --steps 20`: `comfy-api workflows show WORKFLOW` lists them. What is
    true or false is `--name` or `--no-name`. A picture is the path of a file, which is uploaded, or an upload's id, a
    job's id or an https URL. Prints the absolute path of each file, and text and numbers that it gives.
    """
    target = None if output is None else Path(output)
    folder = output is not None and (output.endswith(("/", os.sep)) or Path(output).is_dir())
    formatted = None if folder else simple.format_of(target)
    body: dict[str, Any] = {
        "workflow_id": workflow_id,
        "version": version,
        "priority": priority,
        "deadline": deadline,
        "labels": simple.labels(label or ()) or None,
        "output": None if formatted is None else {"format": formatted},
    }
    own = {name for one in ctx.command.params for name in options_of(one)}
    given = [*ctx.meta.get(META, ()), *explicit(param or ())]
    if target is not None and target.suffix and wait and not (force or folder):
        from comfy_api_service.cli.client.saving import refuse_overwriting  # noqa: PLC0415

        refuse_overwriting([target])
    run(
        _run(
            {name: value for name, value in body.items() if value is not None},
            given,
            own,
            target,
            folder=folder,
            wait=wait,
            force=force,
            preview=preview,
            as_json=as_json,
            server=server,
            api_key=api_key,
        )
    )


async def _run(
    body: Mapping[str, Any],
    given: Sequence[Given],
    own: set[str],
    target: Path | None,
    *,
    folder: bool,
    wait: bool,
    force: bool,
    preview: bool,
    as_json: bool,
    server: str,
    api_key: str | None,
) -> None:
    from comfy_api_service.cli.client.bars import bar  # noqa: PLC0415
    from comfy_api_service.cli.client.making import make  # noqa: PLC0415

    async with api_of(server, api_key) as api:
        inputs, seeds = await _inputs(api, str(body["workflow_id"]), body.get("version"), given, own)
        order = {**body, "inputs": inputs}
        if not wait:
            accepted = await api.submit(order, f"cli-{uuid.uuid4()}")
            print(as_json_text(accepted) if as_json else accepted["job_id"])
            return
        with bar(previews=preview) as shown:
            made = await make(api, order, shown)
        into = target / made.job_id if folder and target is not None else target
        # a workflow may give text and numbers alone
        paths = await made.save(into, force=force) if made.artifacts or not made.values else []
        if as_json:
            print(as_json_text(made.job))
            return
        _tell(made, seeds)
        if preview:
            await asyncio.to_thread(simple.preview_files, paths)
        for path in paths:
            print(path)


async def _inputs(
    api: "Api", workflow_id: str, version: int | None, given: Sequence[Given], own: set[str]
) -> tuple[dict[str, Any], list[str]]:
    """The values to send, and the names of seeds; files are uploaded when all the rest is right."""
    from comfy_api_service.cli.client.pictures import check_picture, reference  # noqa: PLC0415

    parameters = (await api.workflow(workflow_id, version))["parameters"]
    values = inputs_from(parameters, given, workflow_id, own)
    pictures = [one["name"] for one in parameters if one["type"] == "image" and one["name"] in values]
    for name in pictures:
        check_picture(values[name], f"--{name}")
    for name in pictures:
        values[name] = await reference(api, values[name], f"--{name}")
    return values, [one["name"] for one in parameters if one["type"] == "seed"]


def _tell(made: "Made", seeds: Sequence[str]) -> None:
    used = (made.job.get("params") or made.job.get("metadata") or {}).get("inputs") or {}
    say(", ".join([made.job_id, *(f"{name} {used[name]}" for name in seeds if name in used)]))
    for found in made.values.values():
        for value in found:
            print(value if isinstance(value, str) else as_json_text(value))


def api_of(server: str, api_key: str | None) -> "Api":
    from comfy_api_service.cli.client.api import Api  # noqa: PLC0415 - loads the HTTP client

    return Api(server, api_key)

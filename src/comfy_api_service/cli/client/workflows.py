"""`workflows add|list|show|inspect|delete`; `run` stands in `running`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from comfy_api_service.cli.client import documents, running
from comfy_api_service.cli.client.given import WithParameters
from comfy_api_service.cli.client.tables import HEAD, parameter_row, table
from comfy_api_service.cli.faults import ExitCode
from comfy_api_service.cli.options import DEFAULT_SERVER, ApiKey, AsJson, Server
from comfy_api_service.cli.output import as_json_text, examples, run, say, stderr, stdout

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Keep workflows, and run them with parameters."
)
app.command("run", cls=WithParameters, epilog=running.EXAMPLES)(running.run_workflow)

WorkflowId = running.WorkflowId
File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE.json",
        help="A workflow in API form, or as ComfyUI's page saves it; - reads standard input.",
        show_default=False,
    ),
]


@app.command(
    epilog=examples(
        "comfy-api workflows add portrait.json --name Portrait",
        "ID=$(comfy-api workflows add portrait.json)",
        "comfy-api workflows add portrait.json --update wfl_01h…",
        "comfy-api workflows show wfl_01h… --json > mine.json; comfy-api workflows add mine.json",
    )
)
def add(
    file: File,
    name: Annotated[
        str | None, typer.Option(help="What it is called; default: as the file.", show_default=False)
    ] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.", show_default=False)] = None,
    update: Annotated[
        str | None, typer.Option(metavar="WORKFLOW", help="Make the next version of this one instead.")
    ] = None,
    as_json: AsJson = False,
    server: Server = DEFAULT_SERVER,
    api_key: ApiKey = None,
) -> None:
    """Store a workflow, or its next version. Prints its id, and on stderr the parameters that were found.

    A file as `show --json` prints it brings its name, parameters and outputs along.
    """
    body = documents.body_from(documents.read(file))
    body |= {key: value for key, value in (("name", name), ("description", description)) if value is not None}
    stored = run(_add(server, api_key, body, file.stem if str(file) != "-" else "workflow", update))
    if as_json:
        print(as_json_text(stored))
        return
    say(f"{stored['name']}, version {stored['version']}")
    _parameters(stored["parameters"], on_stderr=True)
    print(stored["workflow_id"])


async def _add(
    server: str, api_key: str | None, body: Mapping[str, Any], name: str, update: str | None
) -> Mapping[str, Any]:
    async with running.api_of(server, api_key) as api:
        if update is None:
            return await api.add_workflow({"name": name, **body})
        stored = await api.workflow(update)
        kept = {"name": stored["name"], "description": stored["description"]}
        return await api.replace_workflow(update, {**kept, **body})


@app.command("list", epilog=examples("comfy-api workflows list", "comfy-api workflows list --json"))
def list_workflows(as_json: AsJson = False, server: Server = DEFAULT_SERVER, api_key: ApiKey = None) -> None:
    """List your workflows, newest first, those that are published, and those that come with the service."""
    found = run(_list(server, api_key))
    if as_json:
        print(as_json_text({"workflows": found}))
        return
    rows = [(str(one["workflow_id"]), str(one["version"]), _whose(one), f"{one['name']}") for one in found]
    table(("workflow", "version", "whose", "name"), rows)


async def _list(server: str, api_key: str | None) -> Sequence[Mapping[str, Any]]:
    async with running.api_of(server, api_key) as api:
        return await api.workflows()


@app.command(
    epilog=examples(
        "comfy-api workflows show text-to-image-sd15", "comfy-api workflows show wfl_01h… --version 2 --json"
    )
)
def show(
    workflow_id: WorkflowId,
    version: Annotated[
        int | None, typer.Option(min=1, help="Default: the latest.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    server: Server = DEFAULT_SERVER,
    api_key: ApiKey = None,
) -> None:
    """Show a workflow and what it takes: each parameter's type, default and bounds, and the inputs that it sets."""
    stored = run(_show(server, api_key, workflow_id, version))
    if as_json:
        print(as_json_text(stored))
        return
    facts = {
        "workflow": stored["workflow_id"],
        "name": stored["name"],
        "description": stored["description"],
        "version": stored["version"],
        "whose": _whose(stored),
        "nodes": len(stored["workflow"]),
        "outputs": _outputs(stored["outputs"]),
    }
    for name, value in facts.items():
        if value != "":
            stdout().print(f"{name:<14} {value}", markup=False)
    print()
    _parameters(stored["parameters"])


async def _show(server: str, api_key: str | None, workflow_id: str, version: int | None) -> Mapping[str, Any]:
    async with running.api_of(server, api_key) as api:
        return await api.workflow(workflow_id, version)


@app.command(
    epilog=examples(
        "comfy-api workflows inspect portrait.json", "comfy-api workflows inspect portrait.json --json"
    )
)
def inspect(
    file: File, as_json: AsJson = False, server: Server = DEFAULT_SERVER, api_key: ApiKey = None
) -> None:
    """Tell what is in a workflow's file; nothing is stored. Exit code 1 if it could not run."""
    found = run(_inspect(server, api_key, documents.body_from(documents.read(file))["workflow"]))
    if as_json:
        print(as_json_text(found))
    else:
        _inspection(found)
    if found["problems"]:
        raise SystemExit(ExitCode.FAILED)


async def _inspect(server: str, api_key: str | None, graph: Mapping[str, Any]) -> Mapping[str, Any]:
    async with running.api_of(server, api_key) as api:
        return await api.inspect(graph)


@app.command(epilog=examples("comfy-api workflows delete wfl_01h…"))
def delete(workflow_id: WorkflowId, server: Server = DEFAULT_SERVER, api_key: ApiKey = None) -> None:
    """Delete a workflow of yours, all its versions. Jobs made from it stay."""
    run(_delete(server, api_key, workflow_id))
    print(f"{workflow_id} deleted")


async def _delete(server: str, api_key: str | None, workflow_id: str) -> None:
    async with running.api_of(server, api_key) as api:
        await api.delete_workflow(workflow_id)


def _inspection(found: Mapping[str, Any]) -> None:
    from comfy_api_service.cli.client.refusals import line_of  # noqa: PLC0415

    nodes = [f"{one['count']} {one['class_type']}" for one in found["nodes"]]
    print(f"{'nodes':<14} {', '.join(nodes) or 'none'}")
    print(f"{'outputs':<14} {_outputs(found['outputs']) or 'none'}")
    for one in found["models"]:
        backends = len(one["backends"])
        where = f"on {backends} backend{'s' if backends > 1 else ''}" if backends else "on no backend"
        print(f"{'model':<14} {one['name']} ({one['kind']}), {where}")
    print()
    _parameters(found["parameters"])
    problems = found["problems"]
    if problems:
        stderr().print(f"\nIt could not run: {len(problems)} problem{'s' if len(problems) > 1 else ''}.")
        for problem in problems:
            stderr().print(f"  - {problem['code']}: {line_of(problem)}", markup=False)


def _parameters(found: Sequence[Mapping[str, Any]], *, on_stderr: bool = False) -> None:
    if not found:
        say("no parameters")
        return
    table(HEAD, [parameter_row(one) for one in found], on_stderr=on_stderr)


def _outputs(found: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f"{one['name']} (node {one['node']})" for one in found)


def _whose(one: Mapping[str, Any]) -> str:
    if one["ready_made"]:
        return "the service's"
    whose = "yours" if one["own"] else "another's"
    return f"{whose}, published" if one["published"] else whose

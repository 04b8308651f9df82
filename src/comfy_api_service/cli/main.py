"""`comfy-api`: the commands, and the one place that shows their faults.

Commands load what they need when they run, so that help and the client start at once.
"""

import contextlib
import io
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from comfy_api_service.cli import admin, api, backends, backup, demo, restore, schema, serve, simulate, worker
from comfy_api_service.cli.client import generate, jobs, workflows
from comfy_api_service.cli.doctor import command as doctor
from comfy_api_service.cli.faults import Fault
from comfy_api_service.cli.output import examples, tell

SERVING = "Serving"
CLIENT = "Client"
CARE = "Care"

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=examples(
        "comfy-api demo --generate",
        "comfy-api serve --comfyui-url http://127.0.0.1:8188",
        'comfy-api generate "a lighthouse at dawn" -o lighthouse.png',
    )
    + "\n\n[bold]Exit codes[/bold]\n\n  0 done   1 failed or refused   2 wrong usage or settings   "
    "3 no server answers   130 interrupted",
)
app.command(rich_help_panel=SERVING, epilog=serve.EXAMPLES)(serve.serve)
app.command(rich_help_panel=SERVING, epilog=api.EXAMPLES)(api.api)
app.command(rich_help_panel=SERVING, epilog=worker.EXAMPLES)(worker.worker)
app.command(rich_help_panel=SERVING, epilog=demo.EXAMPLES)(demo.demo)
app.command(rich_help_panel=SERVING, epilog=simulate.EXAMPLES)(simulate.simulate)
app.command(rich_help_panel=CLIENT, epilog=generate.EXAMPLES)(generate.generate)
app.add_typer(jobs.app, name="jobs", rich_help_panel=CLIENT)
app.add_typer(workflows.app, name="workflows", rich_help_panel=CLIENT)
app.add_typer(admin.app, name="admin", rich_help_panel=CARE)
app.add_typer(backends.app, name="backends", rich_help_panel=CARE)
app.command(rich_help_panel=CARE, epilog=doctor.EXAMPLES)(doctor.doctor)
app.command(rich_help_panel=CARE, epilog=backup.EXAMPLES)(backup.backup)
app.command(rich_help_panel=CARE, epilog=restore.EXAMPLES)(restore.restore)
app.command(rich_help_panel=CARE, epilog=schema.MIGRATE_EXAMPLES)(schema.migrate)
app.command(rich_help_panel=CARE, epilog=schema.OPENAPI_EXAMPLES)(schema.openapi)
app.command(rich_help_panel=CARE, epilog=schema.VERSION_EXAMPLES)(schema.version)


def _print_version(wanted: bool) -> None:
    if wanted:
        schema.version()
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A production REST API in front of ComfyUI: the service, and its client."""
    del version


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; ends the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(args=arguments, prog_name="comfy-api")
    except Fault as fault:
        with contextlib.suppress(BrokenPipeError):
            tell(fault)
        raise SystemExit(fault.exit_code) from None

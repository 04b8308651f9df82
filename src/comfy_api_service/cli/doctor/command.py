"""`doctor`: what is wrong, and what to do about it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comfy_api_service.cli.faults import ExitCode
from comfy_api_service.cli.output import as_json_text, examples, run, stdout

if TYPE_CHECKING:
    from comfy_api_service.cli.doctor.finding import Finding

EXAMPLES = examples("comfy-api doctor", "comfy-api doctor --comfyui-url http://gpu1:8188 --json")
MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "fault": ("✗", "red")}


def doctor(
    comfyui_url: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Ask this ComfyUI; may be repeated.  [dim]\\[COMFYUI_URL][/dim]"),
    ] = None,
    comfyui_dir: Annotated[
        Path | None, typer.Option(help="Folder of a local ComfyUI.  [dim]\\[COMFYUI_DIR][/dim]")
    ] = None,
    comfyui_python: Annotated[
        str | None, typer.Option(metavar="PYTHON", help="Interpreter for it, as `serve` is given it.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of database and results.  [dim]\\[DATA_DIR, ./data][/dim]")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the service.  [dim]\\[PORT, 8000][/dim]")] = None,
    no_backends: Annotated[bool, typer.Option("--no-backends", help="Ask no ComfyUI.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check every dependency, and name a remedy for each failure. Changes nothing. Exit code 1 on a fault.

    Then the effective settings are shown, secrets hidden.
    """
    findings, settings = _examine(
        comfyui_python,
        backends=not no_backends,
        comfyui_url=tuple(comfyui_url) if comfyui_url else None,
        comfyui_dir=comfyui_dir,
        data_dir=data_dir,
        port=port,
    )
    healthy = all(finding.status != "fault" for finding in findings)
    if as_json:
        shown = {"ok": healthy, "findings": [asdict(one) for one in findings], "settings": settings}
        print(as_json_text(shown))
    else:
        _show(findings, settings)
    if not healthy:
        raise typer.Exit(ExitCode.FAILED)


def _examine(
    comfyui_python: str | None, *, backends: bool, **overrides: object
) -> tuple[list["Finding"], Mapping[str, str] | None]:
    """What was found, and the settings; None if they are wrong, and what hangs on them is unknown."""
    from comfy_api_service.cli.doctor import checks  # noqa: PLC0415 - loads the settings
    from comfy_api_service.cli.doctor.shown import effective_settings  # noqa: PLC0415
    from comfy_api_service.settings import SettingsError, load  # noqa: PLC0415

    findings = [*checks.settings_without_effect(), *checks.of_machine()]
    try:
        settings = load(**overrides)
    except SettingsError as error:
        return [*checks.settings_faults(error.faults), *findings], None
    found = run(checks.of_settings(settings, comfyui_python=comfyui_python, comfyui=backends))
    return [*checks.settings_faults(()), *findings, *found], effective_settings(settings)


def _show(findings: Sequence["Finding"], settings: Mapping[str, str] | None) -> None:
    console = stdout()
    for finding in findings:
        mark, colour = MARKS[finding.status]
        console.print(f"[{colour}]{mark}[/{colour}] [bold]{finding.subject}[/bold]:", end=" ")
        console.print(finding.message, markup=False)
        if finding.remedy:
            console.print(f"    {finding.remedy}", markup=False, style="cyan")
    if settings is None:
        console.print("\nThe rest was not checked: correct the settings first.")
        return
    console.print("\n[bold]Effective settings[/bold]")
    for name, value in settings.items():
        console.print(f"  {name:<22} {value or '(not set)'}", markup=False)

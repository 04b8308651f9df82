"""All checks, in the order in which they are shown."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from comfy_api_service.cli.doctor import backends, data, machine, postgres
from comfy_api_service.cli.doctor.finding import Finding, fault, ok
from comfy_api_service.cli.listening import url_of

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings


def settings_faults(faults: Sequence[str]) -> list[Finding]:
    """A finding for each wrong setting; one that says so if none is."""
    if not faults:
        return [ok("settings", "valid")]
    return [_setting(line) for line in faults]


def _setting(line: str) -> Finding:
    from comfy_api_service.settings import Settings  # noqa: PLC0415

    name, _, message = line.partition(": ")
    known = Settings.model_fields.get(name.lower().removesuffix("_file"))
    what = f" {known.description}" if known is not None and known.description else ""
    return fault(f"setting {name}", message, f"Correct or remove it, in the environment or in .env.{what}")


def of_machine() -> list[Finding]:
    return [machine.python(), machine.sqlite(), machine.open_files()]


async def of_settings(settings: "Settings") -> list[Finding]:
    """Everything that the settings lead to."""
    findings = [
        machine.port(settings.host, settings.port, is_this_service),
        data.data_folder(settings.data_dir),
        data.disk(settings.data_dir),
        data.database(settings.database_path)
        if settings.postgres_url is None
        else await postgres.database(settings.postgres_url, settings.database_pool_size),
    ]
    if settings.comfyui_dir is not None:
        findings.append(local(settings))
    if settings.comfyui_dir is None or "comfyui_url" in settings.model_fields_set:
        for probe in await backends.probe_all(settings.comfyui_url):
            findings.append(backends.reachable(probe))
            findings += [found for found in (backends.models(probe),) if found is not None]
    return findings


def local(settings: "Settings") -> Finding:
    """The ComfyUI that `serve` would start."""
    from comfy_api_service.cli.faults import Fault  # noqa: PLC0415
    from comfy_api_service.cli.supervisor import local_comfyui  # noqa: PLC0415

    if settings.comfyui_dir is None:
        return ok("local ComfyUI", "none is started")
    try:
        found = local_comfyui(settings.comfyui_dir, port=8188)
    except Fault as error:
        return fault(
            "local ComfyUI", error.message, "Set COMFYUI_DIR to the folder that ComfyUI was cloned to."
        )
    return ok("local ComfyUI", f"{found.folder}, started with {found.python}")


def is_this_service(host: str, port: int) -> bool:
    """Whether what answers there says that it is this service."""
    import httpx2  # noqa: PLC0415

    try:
        answer = httpx2.get(f"{url_of(host, port)}/", timeout=2.0, trust_env=False)
        found = answer.json()
    except (httpx2.HTTPError, ValueError):
        return False
    return isinstance(found, dict) and found.get("name") == "comfy-api-service"

"""All checks, in the order in which they are shown."""

import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from comfy_api_service.cli.doctor import accounts, backends, data, machine, postgres, tls
from comfy_api_service.cli.doctor.finding import Finding, fault, ok, warning
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
    fields = Settings.model_fields
    known = fields.get(name.lower()) or fields.get(name.lower().removesuffix("_file"))
    what = f" {known.description}" if known is not None and known.description else ""
    return fault(f"setting {name}", message, f"Correct or remove it, in the environment or in .env.{what}")


def settings_without_effect() -> list[Finding]:
    """What stands in `.env` and does nothing."""
    from comfy_api_service.settings import without_effect  # noqa: PLC0415

    remedy = "Correct or remove it. Names of all settings: docs/SETTINGS.md."
    return [warning("settings", f".env: {line}", remedy) for line in without_effect()]


def of_machine() -> list[Finding]:
    return [machine.python(), machine.sqlite(), machine.open_files()]


async def of_settings(
    settings: "Settings", *, comfyui_python: str | None = None, comfyui: bool = True
) -> list[Finding]:
    """Everything that the settings lead to; without `comfyui` all but ComfyUI."""
    findings = [
        machine.port(settings.host, settings.port, partial(is_this_service, settings=settings)),
        data.data_folder(settings.data_dir),
        data.disk(settings.data_dir),
        data.database(settings.database_path)
        if settings.postgres_url is None
        else await postgres.database(settings.postgres_url, settings.database_pool_size),
    ]
    if settings.postgres_url is not None:
        findings.append(key(settings))
    if not settings.auth_enabled:
        findings += await accounts.unused(settings)
    if settings.tls_cert_file is not None and settings.tls_key_file is not None:
        findings.append(tls.certificate(settings.tls_cert_file, settings.tls_key_file))
    if settings.redis_url is not None:
        from comfy_api_service.cli.doctor import redis  # noqa: PLC0415 - takes a third of a second

        findings.append(await redis.examine(settings.redis_url))
    if settings.s3_endpoint is not None:
        findings += await in_store(settings)
    if settings.prompt_hook is not None:
        from comfy_api_service.cli.doctor import hook  # noqa: PLC0415 - loads the whole service

        findings.append(await hook.examine(settings))
    if settings.traces_on:
        from comfy_api_service.cli.doctor import traces  # noqa: PLC0415 - loads the whole service

        findings.append(await traces.examine(settings))
    return findings + (await of_comfyui(settings, comfyui_python) if comfyui else [])


def key(settings: "Settings") -> Finding:
    """Of processes that share a database: those that have another one refuse what this one signs and seals."""
    if settings.secret_key is not None:
        return ok("key", "SECRET_KEY is set; every process on this database needs the same")
    return warning(
        "key",
        f"no SECRET_KEY: processes with another data folder than {settings.data_dir.absolute()} have another key, "
        "refuse logins and links of this one, and cannot sign webhooks made here",
        "Give all processes that share the database the same SECRET_KEY, unless all have this folder.",
    )


async def of_comfyui(settings: "Settings", python: str | None) -> list[Finding]:
    """The one that the service would start, and those that it is told of."""
    findings = []
    if settings.comfyui_dir is not None:
        findings.append(local(settings, python))
    if settings.comfyui_dir is None or "comfyui_url" in settings.model_fields_set:
        for probe in await backends.probe_all(settings.comfyui_url):
            findings.append(backends.reachable(probe))
            findings += [found for found in (backends.models(probe),) if found is not None]
    return findings


async def in_store(settings: "Settings") -> list[Finding]:
    """The S3-compatible store, if there is one."""
    from comfy_api_service.bootstrap.parts import s3_bucket  # noqa: PLC0415
    from comfy_api_service.cli.doctor import store  # noqa: PLC0415

    bucket = s3_bucket(settings)
    return [] if bucket is None else await store.store(bucket)


def local(settings: "Settings", python: str | None = None) -> Finding:
    """The ComfyUI that `serve` would start, and whether its interpreter can."""
    from comfy_api_service.cli.faults import Fault  # noqa: PLC0415
    from comfy_api_service.cli.supervisor import local_comfyui  # noqa: PLC0415

    if settings.comfyui_dir is None:
        return ok("local ComfyUI", "none is started")
    try:
        found = local_comfyui(settings.comfyui_dir, port=8188, python=python)
    except Fault as error:
        return fault(
            "local ComfyUI", error.message, "Set COMFYUI_DIR to the folder that ComfyUI was cloned to."
        )
    if not _imports_torch(found.python, found.folder):
        return fault(
            "local ComfyUI",
            f"{found.python}, which would start it, does not have PyTorch",
            "Name ComfyUI's own interpreter with --comfyui-python, or install what it needs into this one: "
            f"{found.python} -m pip install -r {found.folder / 'requirements.txt'}",
        )
    return ok("local ComfyUI", f"{found.folder}, started with {found.python}")


def _imports_torch(python: str, folder: Path) -> bool:
    """Found, not imported: that would take seconds."""
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
    command = (python, "-c", look)
    try:
        ended = subprocess.run(command, check=False, cwd=folder, capture_output=True, timeout=30)  # noqa: S603 - as serve does
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ended.returncode == 0


def is_this_service(host: str, port: int, *, settings: "Settings") -> bool:
    """Whether what answers there says that it is this service; asked as the settings have it."""
    import httpx2  # noqa: PLC0415

    try:
        answer = httpx2.get(
            f"{url_of(host, port, tls=settings.tls_cert_file is not None)}/",
            headers=[("Host", name.replace("*", "doctor")) for name in settings.allowed_hosts[:1]],
            timeout=2.0,
            trust_env=False,
            verify=False,
        )
        found = answer.json()
    except (httpx2.HTTPError, ValueError):
        return False
    return isinstance(found, dict) and found.get("name") == "comfy-api-service"

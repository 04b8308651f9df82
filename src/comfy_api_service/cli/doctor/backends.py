"""ComfyUI servers: asked once each, judged by pure functions."""

import asyncio
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import httpx2

from comfy_api_service.cli.causes import in_words, system_error
from comfy_api_service.cli.doctor.finding import Finding, fault, ok, warning
from comfy_api_service.comfyui.inventory import NotObjectInfoError, parse
from comfy_api_service.domain.urls import without_password

OLDEST: Final = (0, 3, 40)
TESTED: Final = ("0.3.64", "0.8.0")
SECONDS: Final = 5.0
_LOADERS: Final = ("CheckpointLoaderSimple", "UNETLoader")


class Reach(StrEnum):
    ANSWERS = "answers"
    REFUSED = "refused"
    """Nothing listens there."""
    UNKNOWN_HOST = "unknown host"
    SILENT = "silent"
    """No answer in time."""
    OTHER = "other"
    """Something answers that is no ComfyUI."""
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Probe:
    """What a server said; `detail` is for people."""

    url: str
    reach: Reach
    detail: str = ""
    version: str | None = None
    devices: tuple[str, ...] = ()
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        return f"ComfyUI {without_password(self.url)}"


async def probe_all(urls: tuple[str, ...], *, seconds: float = SECONDS) -> list[Probe]:
    """Ask all servers at once; `seconds` bounds each answer."""
    async with httpx2.AsyncClient(timeout=seconds, trust_env=False) as http:
        return await asyncio.gather(*(_probe(http, url, seconds) for url in urls))


async def _probe(http: httpx2.AsyncClient, url: str, seconds: float) -> Probe:
    try:
        async with asyncio.timeout(seconds * 3):
            answer = await http.get(f"{url}/system_stats")
            system = _mapping(_json(answer).get("system"))
            if answer.status_code != 200 or not system:
                return Probe(url, Reach.OTHER, _who(answer))
            version = system.get("comfyui_version")
            return Probe(
                url,
                Reach.ANSWERS,
                version=version if isinstance(version, str) else None,
                devices=_devices(_json(answer).get("devices")),
                models=await _models(http, url),
            )
    except (TimeoutError, httpx2.TimeoutException):
        return Probe(url, Reach.SILENT, f"{seconds:g} s")
    except httpx2.ConnectError as error:
        return Probe(url, _refusal(error), in_words(error))
    except httpx2.ProtocolError as error:
        return Probe(url, Reach.OTHER, f"it does not speak HTTP: {error}")
    except httpx2.TransportError as error:
        return Probe(url, Reach.BROKEN, in_words(error))


async def _models(http: httpx2.AsyncClient, url: str) -> Mapping[str, tuple[str, ...]]:
    """Names by kind, of the two loaders that a text-to-image graph begins with."""
    found: dict[str, Any] = {}
    for loader in _LOADERS:
        answer = await http.get(f"{url}/object_info/{loader}")
        found.update(_json(answer))
    try:
        return dict(parse(found).models)
    except NotObjectInfoError:
        return {}


def reachable(probe: Probe) -> Finding:
    """Down, wrong port, silent, or the version that answers."""
    subject = probe.subject
    start = (
        "Start ComfyUI (`python main.py --listen 127.0.0.1`), let `comfy-api serve --comfyui-dir` start it, "
    )
    if probe.reach is Reach.REFUSED:
        return fault(
            subject, "nothing listens there: connection refused", f"{start}or set COMFYUI_URL to where it is."
        )
    if probe.reach is Reach.UNKNOWN_HOST:
        return fault(
            subject, "its host name is not known", "Correct COMFYUI_URL, or the name service of this machine."
        )
    if probe.reach is Reach.SILENT:
        return fault(
            subject,
            f"no answer within {probe.detail}",
            "Check whether it hangs or still starts, and whether a firewall stands between; restart it.",
        )
    if probe.reach is Reach.OTHER:
        return fault(
            subject,
            f"something answers there, but it is not ComfyUI ({probe.detail})",
            "Set COMFYUI_URL to the port that ComfyUI printed at its start (8188 if none was chosen).",
        )
    if probe.reach is Reach.BROKEN:
        return fault(subject, f"the connection fails: {probe.detail}", f"{start}or read its log.")
    return version(probe)


def version(probe: Probe) -> Finding:
    subject = probe.subject
    tested = f"tested are {TESTED[0]} and {TESTED[1]}"
    number = _number(probe.version)
    if number is None:
        return warning(
            subject,
            f"its version {probe.version or 'is not told and'} cannot be read; {tested}",
            f"Update ComfyUI to {TESTED[0]} or newer, if it is an old one.",
        )
    if number < OLDEST:
        return fault(
            subject,
            f"version {probe.version} is too old; {tested}",
            f"Update ComfyUI to {TESTED[0]} or newer (`git pull` in its folder, then its requirements).",
        )
    newer = number > (_number(TESTED[1]) or ())
    devices = f" on {', '.join(probe.devices)}" if probe.devices else ""
    return ok(
        subject, f"version {probe.version}{devices}" + (f"; newer than tested ({tested})" if newer else "")
    )


def models(probe: Probe) -> Finding | None:
    """Whether there is something to generate with; None if the server could not be asked."""
    if probe.reach is not Reach.ANSWERS:
        return None
    checkpoints = probe.models.get("checkpoints", ())
    if checkpoints:
        plural = "" if len(checkpoints) == 1 else "s"
        return ok(probe.subject, f"{len(checkpoints)} checkpoint{plural}, the first is {checkpoints[0]}")
    remedy = (
        "Put a model file such as sd_xl_base_1.0.safetensors into models/checkpoints of ComfyUI's folder; "
        "it is seen without a restart."
    )
    others = probe.models.get("diffusion_models", ())
    if others:
        return warning(
            probe.subject,
            f"no checkpoint, but {len(others)} diffusion models: requests must name one",
            f"Set DEFAULT_MODEL to one of them. Or: {remedy}",
        )
    return fault(probe.subject, "no checkpoint: there is no model to generate with", remedy)


def _number(text: str | None) -> tuple[int, ...] | None:
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text or "")
    return None if found is None else tuple(int(part or 0) for part in found.groups())


def _refusal(error: httpx2.ConnectError) -> Reach:
    found = system_error(error)
    if isinstance(found, ConnectionRefusedError):
        return Reach.REFUSED
    return Reach.UNKNOWN_HOST if isinstance(found, socket.gaierror) else Reach.BROKEN


def _json(answer: httpx2.Response) -> Mapping[str, Any]:
    try:
        return _mapping(answer.json())
    except ValueError:
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _devices(value: object) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else []
    return tuple(str(_mapping(one).get("name", "")) for one in entries if _mapping(one).get("name"))


def _who(answer: httpx2.Response) -> str:
    server = answer.headers.get("server")
    return f"HTTP {answer.status_code}" + (f" from {server}" if server else "")

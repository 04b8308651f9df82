"""Addresses of this service's own things, under the public address or the one that the request used."""

from typing import Final

from starlette.requests import HTTPConnection

from comfy_api_service.api.host_names import HOST
from comfy_api_service.api.state import state_of

API: Final = "/api/v1"


def base_of(connection: HTTPConnection) -> str:
    """What stands before every path: `http://host:port`, or nothing if the request named no sane host."""
    public = state_of(connection).options.public_url
    if public is not None:
        return public
    scope = connection.scope
    for name, value in scope["headers"]:
        if name == b"host":
            host = value.decode("latin-1")
            return (
                f"{scope['comfy_scheme']}://{host}{scope.get('root_path', '')}"
                if HOST.fullmatch(host)
                else ""
            )
    return ""


def job_url(base: str, job_id: str) -> str:
    return f"{base}{API}/jobs/{job_id}"


def events_url(base: str, job_id: str) -> str:
    return f"{base}{API}/jobs/{job_id}/events"


def preview_url(base: str, job_id: str) -> str:
    return f"{base}{API}/jobs/{job_id}/preview"


def generation_url(base: str, job_id: str) -> str:
    return f"{base}{API}/generate/{job_id}"


def batch_url(base: str, batch_id: str) -> str:
    return f"{base}{API}/batches/{batch_id}"


def websocket_url(base: str, job_id: str) -> str:
    """`ws://` or `wss://`; relative if the base is."""
    return f"{'ws' + base[4:] if base.startswith('http') else base}/ws/jobs/{job_id}"


def absolute(base: str, url: str) -> str:
    """A link of the storage, made absolute if this service serves it itself."""
    return f"{base}{url}" if url.startswith("/") else url

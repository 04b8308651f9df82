"""Addresses of this service's own things, under a base as `state.base_of` gives it."""

from typing import Final

API: Final = "/api/v1"


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

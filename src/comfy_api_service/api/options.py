"""What of the settings concerns the API, as values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApiOptions:
    version: str
    jobs_enabled: bool = True
    """False: the jobs paths answer 503; `generate` works."""
    max_body_size: int = 1024**2
    """Bytes of the largest body that is read."""
    public_url: str | None = None
    """Put before links, without a slash at its end; None: as the request addressed the service."""
    cors_origins: tuple[str, ...] = ()
    cors_methods: tuple[str, ...] = ()
    cors_headers: tuple[str, ...] = ()
    metrics_token: str | None = None
    """If set, `/metrics` asks for it as a bearer token."""

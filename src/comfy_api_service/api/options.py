"""What of the settings concerns the API, as values."""

from dataclasses import dataclass

from comfy_api_service.api.client_address import NOBODY, Trusted
from comfy_api_service.api.host_names import ANY_NAME, HostNames
from comfy_api_service.domain.errors import Code, ServiceError


@dataclass(frozen=True, slots=True)
class ApiOptions:
    version: str
    jobs_enabled: bool = True
    """False: the jobs paths answer 503; `generate` works."""
    max_body_size: int = 1024**2
    """Bytes of the largest body that is read."""
    max_upload_size: int = 10 * 1024**2
    """Bytes of the largest file that is uploaded."""
    public_url: str | None = None
    """Put before links, without a slash at its end; None: as the request addressed the service."""
    cors_origins: tuple[str, ...] = ()
    cors_methods: tuple[str, ...] = ()
    cors_headers: tuple[str, ...] = ()
    trusted: Trusted = NOBODY
    """Proxies that are believed what they say of callers."""
    allowed_hosts: HostNames = ANY_NAME
    """Names that requests may be addressed to."""
    hsts_max_age: int = 0
    """Seconds for which browsers shall use https alone, told to those that came by it; 0: nothing is told."""
    metrics_token: str | None = None
    """If set, `/metrics` asks for it as a bearer token."""


def jobs_switched_off() -> ServiceError:
    """What everything but `generate` answers where jobs are off; `setting` tells it from a passing fault."""
    return ServiceError(
        Code.SERVICE_UNAVAILABLE,
        "Jobs are switched off here (JOBS_ENABLED); POST /api/v1/generate works.",
        details={"setting": "JOBS_ENABLED"},
        retry_after=3600,
    )

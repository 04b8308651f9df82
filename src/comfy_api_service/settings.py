"""The settings: environment variables and `.env`, checked at start with every fault named at once.

Read by the composition root and the shell alone; everything else is given values. `NAME_FILE` reads a secret
from a file. The list in docs/SETTINGS.md is generated from this module.
"""

import os
import re
import socket
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    Field,
    HttpUrl,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, DotEnvSettingsSource, NoDecode, SettingsConfigDict

from comfy_api_service.api.client_address import Trusted
from comfy_api_service.api.host_names import HostNames
from comfy_api_service.domain.block_list import BlockList
from comfy_api_service.domain.tiers import TIERS, Limits, tiers_from
from comfy_api_service.redis_link import address

SECRET_FILES: Final = (
    "DATABASE_URL",
    "SECRET_KEY",
    "METRICS_TOKEN",
    "REDIS_URL",
    "S3_ACCESS_KEY",
    "S3_SECRET_KEY",
    "PROMPT_HOOK_SECRET",
    "SENTRY_DSN",
)
"""Settings that may be given as `NAME_FILE`, the path of a file with the secret."""
SHORTEST_SECRET: Final = 32
WELL_KNOWN: Final = (
    "changeme",
    "changethis",
    "replaceme",
    "replacethis",
    "secret",
    "password",
    "placeholder",
    "example",
    "default",
    "insecure",
    "yourkey",
    "12345678",
    "abcdefgh",
    "qwerty",
)
"""Words of keys that somebody made up; what is random does not have them."""
_URL: Final = TypeAdapter(HttpUrl)
_LONGEST_LIST: Final = 4 << 20
_PYTHON_HOOK: Final = re.compile(r"python:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_DSN: Final = re.compile(r"https?://[^\s:@/]+(?::[^\s@/]+)?@[^\s@/]+(?:/[^\s@?#]*)?/[0-9A-Za-z_-]+")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
_OF_TRACES: Final = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
_ENVIRONMENT_ALONE: Final = ("OTEL_", "SENTRY_", "COMFY_API_")
_OF_STORE: Final = ("s3_bucket", "s3_access_key", "s3_secret_key", "s3_region", "s3_public_url")
POSTGRES: Final = ("postgresql://", "postgres://")
CommaSeparated = Annotated[tuple[str, ...], NoDecode]


class SettingsError(Exception):
    """One or more settings are wrong; `faults` has a line for each."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


class Settings(BaseSettings):
    """Every setting with its default; durations are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_file=".env", env_file_encoding="utf-8", extra="ignore", frozen=True)

    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Without authentication only loopback is allowed, unless "
        "`--insecure`.",
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: str | None = Field(
        None,
        description="Address under which callers reach the service; put before links. Default: that of the "
        "request.",
    )
    trusted_proxies: CommaSeparated = Field(
        (),
        description="Addresses or networks of proxies in front, and `unix` for those on a Unix socket, that are "
        "believed `X-Forwarded-For` and `X-Forwarded-Proto`. Default: none.",
    )
    allowed_hosts: CommaSeparated = Field(
        (),
        description="Host names that the service may be asked by, without ports, also `*.example.com`; probes "
        "and `/metrics` may use any. Default: all.",
    )
    tls_cert_file: Path | None = Field(
        None,
        description="PEM file with the certificate, and those between it and the authority; the service then "
        "answers https alone. Needs `TLS_KEY_FILE`.",
    )
    tls_key_file: Path | None = Field(
        None, description="PEM file with the key of that certificate, without a pass phrase."
    )
    hsts_max_age: int = Field(
        0,
        ge=0,
        le=10 * 366 * 86_400,
        description="How long browsers that came by https shall use nothing else "
        "(`Strict-Transport-Security`); 0: not told.",
    )
    data_dir: Path = Field(
        Path("data"), description="Folder for database, artifacts and the service's own key."
    )
    node_id: str = Field(
        default_factory=socket.gethostname,
        description="Name of this machine; tells loopback backends of several machines apart.",
    )

    comfyui_url: CommaSeparated = Field(
        ("http://127.0.0.1:8188",),
        description="ComfyUI servers, comma-separated.",
    )
    comfyui_dir: Path | None = Field(None, description="Folder of a local ComfyUI to start and supervise.")
    default_model: str | None = Field(
        None,
        description="Model of requests that name none. Default: the first checkpoint there is.",
    )

    node_policy: Literal["core", "open"] | None = Field(
        None,
        description="Which node classes callers may use: `core`, those of ComfyUI that are known to be harmless, or "
        "`open`, all that the backends have. Default: `core` with authentication, `open` without.",
    )

    prompt_blocklist_file: Path | None = Field(
        None,
        description="File of terms that no text of a request may have, one a line; see docs/RULES.md. Default: none.",
    )
    prompt_hook: str | None = Field(
        None,
        repr=False,
        description="What is asked about the texts of each request, and may refuse or rewrite it: `https://…`, "
        "`http://…`, or `python:package.module:function`; see docs/RULES.md. Default: nothing.",
    )
    prompt_hook_timeout: float = Field(2, gt=0, le=30, description="How long an answer of the hook may take.")
    prompt_hook_on_failure: Literal["refuse", "allow"] = Field(
        "refuse",
        description="What becomes of a request when the hook gives no usable answer: `refuse` (503) or `allow`.",
    )
    prompt_hook_secret: SecretStr | None = Field(
        None, description="Sent to the hook's address as a bearer token."
    )

    database_url: str | None = Field(
        None,
        description="`postgresql://user:password@host/name`, for any number of machines, or `sqlite:///path`. "
        "Default: SQLite in `DATA_DIR`.",
    )
    database_pool_size: int = Field(
        10,
        ge=2,
        le=1000,
        description="Most connections of one process to PostgreSQL, half of them for reading.",
    )
    redis_url: str | None = Field(
        None,
        repr=False,
        description="Redis or Valkey: `redis://[user:password@]host:6379/0`, `rediss://` for TLS, "
        "`unix:///path`, `redis+sentinel://host1:26379,host2:26379/service/0`. Default: none, signals stay in "
        "the process.",
    )

    s3_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("s3_endpoint", "minio_endpoint"),
        description="Address of an S3-compatible store for results. Default: none, they are files in "
        "`DATA_DIR`.",
    )
    s3_bucket: str = Field(
        "comfyui-artifacts",
        validation_alias=AliasChoices("s3_bucket", "minio_bucket"),
        description="Its bucket, which must exist.",
    )
    s3_access_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("s3_access_key", "minio_access_key"),
        description="Access key id for it.",
    )
    s3_secret_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("s3_secret_key", "minio_secret_key"),
        description="Secret of that access key.",
    )
    s3_region: str = Field(
        "us-east-1",
        validation_alias=AliasChoices("s3_region", "minio_region"),
        description="Its region, part of what is signed.",
    )
    s3_public_url: str | None = Field(
        None,
        description="Address under which callers reach the store, or a CDN in front of it; put before links. "
        "Default: `S3_ENDPOINT`.",
    )
    parked_limit: int = Field(
        10 * 1024**3,
        ge=0,
        description="Most that results may take in `DATA_DIR` while the S3 store is away.",
    )
    parked_timeout: float = Field(
        86_400,
        gt=0,
        description="How long such a result waits for the store before its job fails.",
    )

    jobs_enabled: bool = Field(True, description="False: the jobs paths answer 503, `generate` works.")
    queue_limit: int = Field(
        100_000,
        ge=1,
        description="Most jobs that may wait, over all accounts; beyond, 429.",
    )
    job_timeout: float = Field(600, gt=0, le=86_400, description="Longest run of a prompt on a backend.")
    stall_timeout: float = Field(
        300,
        gt=0,
        le=86_400,
        description="Longest silence of a running prompt before its backend is taken for stuck.",
    )
    unservable_timeout: float = Field(
        3600,
        gt=0,
        description="How long a job waits for a need that no registered backend satisfies any more.",
    )
    job_retention: float = Field(90 * 86_400, gt=0, description="How long rows of finished jobs are kept.")
    worker_concurrency: int | None = Field(
        None,
        ge=1,
        le=10_000,
        validation_alias=AliasChoices("worker_concurrency", "arq_worker_concurrency"),
        description="Most prompts open at once in a worker. Default: two a backend.",
    )
    shutdown_grace: float = Field(
        25,
        ge=0,
        le=3600,
        description="How long running jobs may finish after a stop signal.",
    )
    artifact_limit: int = Field(
        2 * 1024**3,
        ge=1024,
        description="Largest single output file that is stored.",
    )
    max_body_size: int = Field(
        1024**2,
        ge=1024,
        le=64 * 1024**2,
        description="Largest JSON body that is accepted.",
    )
    max_upload_size: int = Field(
        10 * 1024**2,
        ge=1024,
        le=256 * 1024**2,
        description="Largest picture that is accepted as an input, uploaded, in a request, or fetched.",
    )
    upload_ttl: float = Field(
        86_400,
        ge=60,
        le=366 * 86_400,
        description="How long an upload is kept; one that an open job needs, until the job ends.",
    )
    input_urls_allow_private: bool = Field(
        False,
        description="True: pictures are also fetched by http, and from addresses inside (closed networks, tests).",
    )
    webhook_allow_private: bool = Field(
        False,
        description="True: webhooks are also delivered by http, to other ports and to addresses inside (closed "
        "networks, tests).",
    )
    webhook_retry_delay: float = Field(
        5,
        ge=0.05,
        le=3600,
        description="How long after its first failure a delivery is tried again; each time after that waits twice "
        "as long, at most 6 hours, for 3 days.",
    )

    auth_enabled: bool = Field(
        False,
        description="True: every path but the public ones needs a credential.",
    )
    registration_enabled: bool = Field(
        False, description="True: anybody may register an account, of the tier `free`."
    )
    rate_limit_enabled: bool | None = Field(
        None,
        description="Whether submissions, waiting jobs and daily images are limited, by tier. Default: with "
        "authentication.",
    )
    tiers_file: Path | None = Field(
        None, description="TOML with what the tiers allow; see docs/ACCOUNTS.md. Default: the built-in tiers."
    )
    access_token_expire_minutes: float = Field(
        15, gt=0, le=1440, description="How long the access token of a login is good."
    )
    refresh_token_expire_days: float = Field(
        30, gt=0, le=366, description="How long a login lasts without being refreshed."
    )
    secret_key: SecretStr | None = Field(
        None,
        description="Signs links and tokens, encrypts the secrets of webhooks; the same for all processes that share a "
        "database. Default: made at first start, kept in `DATA_DIR`.",
    )
    metrics_token: SecretStr | None = Field(
        None, description="If set, `/metrics` needs it as a bearer token."
    )
    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port of its own on which each process answers `/metrics` and `/health/live`; the n-th of "
        "`api --workers N` on the port n - 1 above. Default: none; `serve` and `api` still have the paths on `PORT`.",
    )
    metrics_host: str | None = Field(
        None, description="Address for `METRICS_PORT`. Default: `HOST`, so loopback unless that is set."
    )
    cors_origins: CommaSeparated = Field((), description="Origins that browsers may call from.")
    cors_methods: CommaSeparated = Field((), description="Methods that those origins may use.")
    cors_headers: CommaSeparated = Field((), description="Headers that those origins may send.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO",
        description="Least level that is logged.",
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto",
        description="`auto`: console in a terminal, else JSON.",
    )
    log_fault_messages: bool = Field(
        False,
        description="True: what unexpected exceptions say is logged beside their types and stacks; it may quote what "
        "callers sent.",
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        description="Base address of an OpenTelemetry collector that is sent traces, by OTLP over HTTP; the SDK's "
        "other settings are read from the environment, see docs/TRACES.md. Default: no traces.",
    )
    trace_callers_per_second: float = Field(
        1,
        ge=0,
        le=1000,
        description="Traces a second that are recorded only because a caller's `traceparent` says that its trace is.",
    )
    sentry_dsn: SecretStr | None = Field(
        None,
        description="Where unexpected exceptions are reported, by Sentry's protocol; see docs/TRACES.md. Default: "
        "nowhere.",
    )

    @field_validator(
        "comfyui_url",
        "trusted_proxies",
        "allowed_hosts",
        "cors_origins",
        "cors_methods",
        "cors_headers",
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("comfyui_url")
    @classmethod
    def _urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            parsed = _URL.validate_python(url)
            if parsed.query or parsed.fragment:
                raise ValueError("a ComfyUI address has no query and no fragment")
        clean = tuple(url.rstrip("/") for url in value)
        if len(set(clean)) != len(clean):
            raise ValueError("the same ComfyUI address is named twice")
        return clean

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        Trusted.read(value)
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        HostNames.read(value)
        return value

    @field_validator("tls_cert_file", "tls_key_file", mode="before")
    @classmethod
    def _unset(cls, value: Any) -> Any:
        return value or None

    @field_validator("tls_cert_file", "tls_key_file")
    @classmethod
    def _readable(cls, value: Path | None) -> Path | None:
        if value is not None:
            try:
                value.read_bytes()
            except OSError as fault:
                raise ValueError(f"cannot be read ({fault.strerror})") from None
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis(cls, value: str | None) -> str | None:
        if value:
            address.parse(value)
        return value or None

    @field_validator("public_url")
    @classmethod
    def _public(cls, value: str | None) -> str | None:
        if value is None or value == "":
            return None
        _URL.validate_python(value)
        return value.rstrip("/")

    @field_validator("s3_endpoint", "s3_public_url")
    @classmethod
    def _store(cls, value: str | None) -> str | None:
        if value is None or value == "":
            return None
        try:
            parsed = _URL.validate_python(value)
        except ValidationError:
            raise ValueError("must begin with http:// or https://, as in http://store:9000") from None
        if parsed.path not in (None, "/") or parsed.query or parsed.fragment or parsed.username:
            raise ValueError("only scheme, host and port: the bucket has a setting of its own")
        return value.rstrip("/")

    @field_validator("s3_bucket")
    @classmethod
    def _bucket(cls, value: str) -> str:
        if not _BUCKET.fullmatch(value):
            raise ValueError("a bucket's name has 3 to 63 letters, digits, dots and hyphens")
        return value

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str | None) -> str | None:
        if not value:
            return None
        if value.startswith(POSTGRES):
            return _checked_postgres(value)
        if value.startswith("sqlite:///"):
            return value
        raise ValueError("begins with postgresql:// or sqlite:///")

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("prompt_blocklist_file", mode="before")
    @classmethod
    def _no_list(cls, value: Any) -> Any:
        return value or None

    @field_validator("prompt_blocklist_file")
    @classmethod
    def _listed(cls, value: Path | None) -> Path | None:
        read_block_list(value)
        return value

    @field_validator("prompt_hook")
    @classmethod
    def _hook(cls, value: str | None) -> str | None:
        if not value:
            return None
        if value.startswith(("http://", "https://")):
            return _checked_hook(value)
        if not _PYTHON_HOOK.fullmatch(value):
            raise ValueError("begins with https:// or http://, or is python:package.module:function")
        return value

    @field_validator("prompt_hook_secret")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
            raise ValueError("has characters that no header may have")
        return value

    @field_validator("otel_exporter_otlp_endpoint")
    @classmethod
    def _collector(cls, value: str | None) -> str | None:
        if not value:
            return None
        try:
            parsed = _URL.validate_python(value)
        except ValidationError:
            raise ValueError("is no address, as http://collector:4318 is") from None
        if parsed.username or parsed.password or parsed.query or parsed.fragment:
            raise ValueError(
                "has no user, password, query or fragment: OTEL_EXPORTER_OTLP_HEADERS is for credentials"
            )
        spoken = {os.environ.get(name) for name in _PROTOCOLS} - {None, "", "http/protobuf"}
        if spoken:
            raise ValueError(
                "traces are sent by http/protobuf alone; OTEL_EXPORTER_OTLP_PROTOCOL asks for another"
            )
        if not _installed(_OF_TRACES):
            raise ValueError("needs packages that are absent: `make install`, or pip install '.[tracing]'")
        return value

    @field_validator("sentry_dsn")
    @classmethod
    def _sentry(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        if not _DSN.fullmatch(value.get_secret_value()):
            raise ValueError("is no DSN, as https://key@sentry.example.com/1 is")
        if not _installed(("sentry_sdk",)):
            raise ValueError("needs a package that is absent: `make install`, or pip install '.[sentry]'")
        return value

    @field_validator("tiers_file")
    @classmethod
    def _tiers(cls, value: Path | None) -> Path | None:
        read_tiers(value)
        return value

    @field_validator("secret_key")
    @classmethod
    def _hard_to_guess(cls, value: SecretStr | None) -> SecretStr | None:
        fault = None if value is None else _weakness(value.get_secret_value())
        if fault is not None:
            raise ValueError(f"{fault}; `openssl rand -hex 32` makes a good one")
        return value

    @property
    def traces_on(self) -> bool:
        """Whether traces are sent; the SDK's own ways to switch it off are honoured."""
        off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        off |= os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"
        return self.otel_exporter_otlp_endpoint is not None and not off

    @property
    def tiers(self) -> dict[str, Limits]:
        """What the tiers allow."""
        return read_tiers(self.tiers_file)

    @property
    def block_list(self) -> BlockList | None:
        """Terms that no text may have; None if there is no list."""
        return read_block_list(self.prompt_blocklist_file)

    @property
    def open_to_all_nodes(self) -> bool:
        return (self.node_policy or ("core" if self.auth_enabled else "open")) == "open"

    @property
    def limited(self) -> bool:
        """Whether what tiers allow is held against anybody."""
        return self.auth_enabled if self.rate_limit_enabled is None else self.rate_limit_enabled

    @property
    def postgres_url(self) -> str | None:
        """The address of the PostgreSQL database; None if it is SQLite."""
        url = self.database_url
        return url if url is not None and url.startswith(POSTGRES) else None

    @property
    def database_path(self) -> Path:
        """Where the SQLite database is; not for PostgreSQL."""
        if self.database_url is not None:
            return Path(self.database_url.removeprefix("sqlite:///"))
        return self.data_dir / "comfy-api.sqlite3"

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.stall_timeout > self.job_timeout * 10:
            raise ValueError("STALL_TIMEOUT is far above JOB_TIMEOUT: it would never act")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS_CERT_FILE and TLS_KEY_FILE need each other")
        if self.hsts_max_age and self.tls_cert_file is None and not self.trusted_proxies:
            raise ValueError(
                "HSTS_MAX_AGE would never be told: nobody comes by https without TLS_CERT_FILE or TRUSTED_PROXIES"
            )
        if self.prompt_hook_secret is not None and not (self.prompt_hook or "").startswith("http"):
            raise ValueError("PROMPT_HOOK_SECRET without an address in PROMPT_HOOK would do nothing")
        if self.s3_endpoint is None:
            idle = [name.upper() for name in _OF_STORE if name in self.model_fields_set]
            if idle:
                raise ValueError(f"{' and '.join(idle)} without S3_ENDPOINT would do nothing")
        elif not self.s3_access_key or not self.s3_secret_key:
            raise ValueError("S3_ENDPOINT needs S3_ACCESS_KEY and S3_SECRET_KEY")
        return self


def read_tiers(path: Path | None) -> dict[str, Limits]:
    """The built-in tiers, with what the file says in place of theirs. Raises `ValueError` with every fault."""
    if path is None:
        return dict(TIERS)
    try:
        return tiers_from(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as fault:
        raise ValueError(f"cannot be read ({fault.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None


def read_block_list(path: Path | None) -> BlockList | None:
    """Raises `ValueError` with every fault of the file."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST_LIST + 1)
    except OSError as fault:
        raise ValueError(f"cannot be read ({fault.strerror})") from None
    if len(content) > _LONGEST_LIST:
        raise ValueError(f"is larger than {_LONGEST_LIST} bytes")
    try:
        return BlockList.read(content.decode("utf-8-sig").splitlines())
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None


def _checked_hook(url: str) -> str:
    """No message repeats it."""
    try:
        parsed = _URL.validate_python(url)
    except ValidationError:
        raise ValueError("is no address, as https://rules.example.com/check is") from None
    if parsed.username or parsed.password or parsed.fragment:
        raise ValueError("has no user, password or fragment: PROMPT_HOOK_SECRET is sent as a bearer token")
    return url


def _weakness(secret: str) -> str | None:
    """Why a key can be guessed; None if nothing says so."""
    if len(secret) < SHORTEST_SECRET:
        return f"at least {SHORTEST_SECRET} characters are needed"
    if secret in (secret + secret)[1:-1]:
        return "repeats itself"
    letters = re.sub(r"[^a-z0-9]", "", secret.lower())
    for word in WELL_KNOWN:
        if word in letters:
            return f"contains {word!r}, as defaults and examples do"
    return None


def _checked_postgres(url: str) -> str:
    """The address, if it can be read; no message repeats it, since it carries a password."""
    parsed = urlsplit(url)
    if parsed.fragment:
        raise ValueError("special characters of a password are percent-encoded: # is %23")
    if not parsed.path.strip("/"):
        raise ValueError("names the database at its end: postgresql://user:password@host/name")
    if "," not in parsed.netloc:  # several servers, the first that answers
        try:
            parsed.port  # noqa: B018 - it is read to be checked
        except ValueError:
            raise ValueError(
                "has a port that is no number; special characters of a password are percent-encoded"
            ) from None
    return url


def load(**overrides: Any) -> Settings:
    """The effective settings: `overrides` (from the command line) before environment before `.env`.

    Raises `SettingsError` with every fault at once.
    """
    faults = []
    given = {key: value for key, value in overrides.items() if value is not None}
    for name in SECRET_FILES:
        path = os.environ.get(f"{name}_FILE")
        if path and name.lower() not in given:
            try:
                given[name.lower()] = Path(path).read_text(encoding="utf-8").strip()
            except OSError as fault:
                faults.append(f"{name}_FILE: cannot be read ({fault.strerror})")
    try:
        settings = Settings(**given)
    except ValidationError as error:
        faults += [_line(fault) for fault in error.errors()]
        raise SettingsError(faults) from None
    if faults:
        raise SettingsError(faults)
    return settings


def without_effect() -> list[str]:
    """A line for each name in `.env` that is no setting, or is read from the environment alone."""
    aliases = {
        str(choice)
        for field in Settings.model_fields.values()
        if isinstance(field.validation_alias, AliasChoices)
        for choice in field.validation_alias.choices
    }
    known = {name.upper() for name in (*Settings.model_fields, *aliases)}
    elsewhere = {f"{name}_FILE" for name in SECRET_FILES}
    lines = []
    for name, value in DotEnvSettingsSource(Settings, case_sensitive=True).env_vars.items():
        if value is None:  # a line without `=` may be a secret that lost its name
            continue
        near = get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.8)
        if name.upper() in known or (name in os.environ and (name in elsewhere or not near)):
            continue
        if name in elsewhere or name.startswith(_ENVIRONMENT_ALONE):
            lines.append(f"{name} is read from the environment alone")
        else:
            lines.append(f"unknown: {name}" + (f" ({near[0]}?)" if near else ""))
    return lines


def _line(fault: Any) -> str:
    name = ".".join(str(part) for part in fault["loc"][:1]).upper() or "SETTINGS"
    return f"{name}: {fault['msg'].removeprefix('Value error, ')}"


def _installed(modules: Sequence[str]) -> bool:
    try:
        return all(find_spec(module) is not None for module in modules)
    except ModuleNotFoundError:
        return False

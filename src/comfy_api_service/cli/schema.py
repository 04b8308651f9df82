"""`migrate`, `openapi` and `version`: small commands without a server."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comfy_api_service import __version__
from comfy_api_service.cli.configuration import effective
from comfy_api_service.cli.output import as_json_text, examples, run

if TYPE_CHECKING:
    from fastapi import FastAPI

MIGRATE_EXAMPLES = examples("comfy-api migrate", "comfy-api migrate --data-dir /srv/comfy")
OPENAPI_EXAMPLES = examples("comfy-api openapi > openapi.json", "comfy-api openapi | jq '.paths | keys'")
VERSION_EXAMPLES = examples("comfy-api version")


def migrate(
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the database.  [dim]\\[DATA_DIR, ./data][/dim]")
    ] = None,
) -> None:
    """Bring the database's schema up to date, and print its revision. Every start does it too."""
    settings = effective(data_dir=data_dir)
    from comfy_api_service import bootstrap  # noqa: PLC0415 - loads the whole service
    from comfy_api_service.cli.server import start_faults  # noqa: PLC0415

    with start_faults(settings):
        print(run(bootstrap.migrate(settings)))


def openapi() -> None:
    """Print the OpenAPI document of the HTTP API."""
    from comfy_api_service.api.openapi import document  # noqa: PLC0415 - loads the whole API

    print(as_json_text(document(_routes())))


def _routes() -> "FastAPI":
    """The application without anything behind it: the document comes from the routes alone."""
    from comfy_api_service.api.app import build_app  # noqa: PLC0415
    from comfy_api_service.api.options import ApiOptions  # noqa: PLC0415
    from comfy_api_service.api.services import ApiServices  # noqa: PLC0415
    from comfy_api_service.telemetry import Metrics  # noqa: PLC0415

    nothing: dict[str, Any] = {field.name: None for field in fields(ApiServices)}
    services = ApiServices(**{**nothing, "metrics": Metrics()})
    return build_app(services, ApiOptions(version=__version__)).fastapi


def version() -> None:
    """Print the version."""
    print(f"comfy-api-service {__version__}")

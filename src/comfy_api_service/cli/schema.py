"""`migrate`, `openapi` and `version`: small commands without a server."""

from pathlib import Path
from typing import Annotated

import typer

from comfy_api_service import __version__
from comfy_api_service.cli.configuration import effective
from comfy_api_service.cli.output import examples, run

MIGRATE_EXAMPLES = examples("comfy-api migrate", "comfy-api migrate --data-dir /srv/comfy")
OPENAPI_EXAMPLES = examples("comfy-api openapi > openapi.json", "comfy-api openapi | jq '.paths | keys'")
VERSION_EXAMPLES = examples("comfy-api version")


def migrate(
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of an SQLite database.  [dim]\\[DATA_DIR, ./data][/dim]")
    ] = None,
) -> None:
    """Bring the database's schema up to date, and print its revision. Every start does it too."""
    settings = effective(data_dir=data_dir)
    from comfy_api_service.bootstrap.parts import migrate  # noqa: PLC0415 - loads what all roles stand on
    from comfy_api_service.cli.starting import start_faults  # noqa: PLC0415

    with start_faults(settings):
        print(run(migrate(settings)))


def openapi() -> None:
    """Print the OpenAPI document of the HTTP API."""
    from comfy_api_service.api.app import openapi_text  # noqa: PLC0415 - loads the whole API

    print(openapi_text(__version__), end="")


def version() -> None:
    """Print the version."""
    print(f"comfy-api-service {__version__}")

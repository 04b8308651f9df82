"""Options that several commands of the client share."""

from typing import Annotated

import typer

DEFAULT_SERVER = "http://127.0.0.1:8000"

Server = Annotated[
    str, typer.Option("--server", envvar="COMFY_API_URL", metavar="URL", help="The service to ask.")
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="COMFY_API_KEY", metavar="KEY", help="Credential, if it asks for one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API gives it.")]

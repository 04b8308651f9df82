"""Pictures that stand on this machine, as what a request can name."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from comfy_api_service.cli.client.api import Api
from comfy_api_service.cli.faults import ExitCode, Fault
from comfy_api_service.cli.output import say

_NAMED: Final = re.compile(
    r"upl_[0-9A-Z]{26}|job_[0-9A-Z]{26}(?:/\d+)?|https?://.+|data:.+", re.IGNORECASE | re.DOTALL
)


def check_picture(given: str, option: str) -> None:
    """Raises `Fault` if it is neither a file that is there nor what the service itself can find."""
    if _NAMED.fullmatch(given) is None and not Path(given).is_file():
        what = "is a folder" if Path(given).is_dir() else "is not there"
        raise Fault(
            f"{option}: the file {given} {what}.",
            "Give the path of a PNG, JPEG or WebP, an upload's id, a job's id, or an https URL.",
            exit_code=ExitCode.USAGE,
        )


async def with_uploads(api: Api, body: Mapping[str, Any]) -> dict[str, Any]:
    """A request for a simple generation with its files uploaded, if all of them are there."""
    named = [name for name in ("image", "mask") if name in body]
    for name in named:
        check_picture(body[name], f"--{name}")
    return {**body, **{name: await reference(api, body[name], f"--{name}") for name in named}}


async def reference(api: Api, given: str, option: str) -> str:
    """What to send for a picture: a file's upload, or an id or address as it stands. Raises `Fault`."""
    check_picture(given, option)
    if _NAMED.fullmatch(given) is not None:
        return given
    with _opened(given, option) as file:
        upload = await api.upload(file)
    say(f"uploaded {given}: {upload['upload_id']}, {upload['width']}×{upload['height']}")
    return str(upload["upload_id"])


def _opened(given: str, option: str) -> BinaryIO:
    try:
        return Path(given).open("rb")
    except OSError as error:
        raise Fault(
            f"{option}: the file {given} cannot be read: {error.strerror}.",
            "Name another file.",
            exit_code=ExitCode.USAGE,
        ) from error

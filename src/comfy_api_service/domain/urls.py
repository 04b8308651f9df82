"""Addresses as they may be shown."""

import re
from typing import Final

HIDDEN: Final = "********"
_PASSWORD: Final = re.compile(r"(?<=://)([^/@\s:]*):([^/\s]*)@")
_PARAMETER: Final = re.compile(r"(?<=password=)[^&#\s]*")


def without_password(url: str) -> str:
    return _PARAMETER.sub(HIDDEN, _PASSWORD.sub(rf"\1:{HIDDEN}@", url))

"""The effective settings as they may be shown: secrets and passwords hidden."""

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings

HIDDEN: Final = "********"
_PASSWORD: Final = re.compile(r"(?<=://)([^/@\s:]*):([^/\s]*)@")
_PARAMETER: Final = re.compile(r"(?<=password=)[^&#\s]*")


def without_password(url: str) -> str:
    return _PARAMETER.sub(HIDDEN, _PASSWORD.sub(rf"\1:{HIDDEN}@", url))


def effective_settings(settings: "Settings") -> dict[str, str]:
    """NAME → value for each setting, in the order of their definition; "" is not set."""
    from pydantic import SecretStr  # noqa: PLC0415

    shown = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is None:
            text = ""
        elif isinstance(value, SecretStr):
            text = HIDDEN
        elif isinstance(value, tuple):
            text = ",".join(value)
        elif isinstance(value, bool):
            text = str(value).lower()
        else:
            text = str(value)
        shown[name.upper()] = without_password(text)
    return shown

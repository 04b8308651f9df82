"""The effective settings as they may be shown: secrets and passwords hidden."""

from typing import TYPE_CHECKING

from comfy_api_service.domain.urls import HIDDEN, without_password

if TYPE_CHECKING:
    from comfy_api_service.settings import Settings


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

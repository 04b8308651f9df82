"""Cursors of lists: opaque to callers, checked when they come back."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

from comfy_api_service.domain.errors import FieldError, ValidationFailed
from comfy_api_service.domain.ids import ACCOUNT_ID, DELIVERY_ID, JOB_ID

JOBS: Final = "j"
MODELS: Final = "m"
USERS: Final = "u"
KEYS: Final = "k"
AUDIT: Final = "a"
WORKFLOWS: Final = "w"
DELIVERIES: Final = "d"
PLACES: Final[Mapping[str, re.Pattern[str]]] = {
    JOBS: JOB_ID,
    MODELS: re.compile(r".*/.*", re.DOTALL),
    USERS: ACCOUNT_ID,
    KEYS: re.compile(r"[0-9A-Za-z]{12}"),
    AUDIT: re.compile(r"[0-9]{1,18}"),
    DELIVERIES: DELIVERY_ID,
    WORKFLOWS: re.compile(r"wfl_[0-9A-HJKMNP-TV-Z]{26}|[a-z][a-z0-9-]{1,62}"),
}
"""What a place in each kind of list looks like."""
LONGEST: Final = 1024
"""Characters of a cursor."""


def encode(kind: str, place: str | None) -> str | None:
    """None, the end of the list, stays None."""
    if place is None:
        return None
    return base64.urlsafe_b64encode(f"{kind}:{place}".encode()).decode().rstrip("=")


def decode(kind: str, cursor: str | None) -> str | None:
    """The place; raises `ValidationFailed` for anything that this service did not give for this list."""
    if cursor is None:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        text = ""
    found, _, place = text.partition(":")
    known = found == kind and encode(kind, place) == cursor
    if not known or PLACES[kind].fullmatch(place) is None:
        raise ValidationFailed([FieldError("cursor", "is not a cursor of this list")])
    return place

"""Signed links to artifacts that this service serves itself.

Their form: `/artifacts/{key}?expires=…&type=…&name=…&signature=…`.

The signature covers key, end, media type and file name, so a link cannot be bent to say anything else.
Never log a link whole: until it expires, it is the right to read.
"""

import base64
import hmac
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from comfy_api_service.domain.errors import Code, Refused
from comfy_api_service.storage.base import checked_key, is_key

PATH: Final = "/artifacts"
_PURPOSE: Final = b"comfy-api artifact link 1"
"""Keeps the same secret's other signatures from being taken for a link's."""
_SECONDS: Final = re.compile(r"[0-9]{1,12}")
_SHOWN_IN_PLACE: Final = re.compile(r"(?:image/(?:png|jpeg|webp|gif)|video/[a-z0-9.+-]+|audio/[a-z0-9.+-]+)")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a valid link allows: to read `key` until `expires_at`, told as this type and name."""

    key: str
    media_type: str
    filename: str
    expires_at: float


class LinkSigner:
    """Makes and verifies links; `base_url` is put before the path ("" gives links without a host)."""

    def __init__(self, secret: bytes, base_url: str) -> None:
        if not secret:
            raise ValueError("a secret for links is needed")
        self._secret = hmac.digest(secret, _PURPOSE, "sha256")
        self._base = base_url.rstrip("/") + PATH

    def link(self, key: str, *, expires_at: float, media_type: str, filename: str) -> str:
        """A link that is good until `expires_at`, in seconds since the epoch, rounded up to whole ones."""
        claim = _claim(checked_key(key), str(math.ceil(expires_at)), media_type, filename)
        return f"{self._base}/{claim}&signature={self._signature(claim)}"

    def verify(self, key: str, query: Mapping[str, str], now: float) -> Grant:
        """What the link with this (decoded) query allows at `now`.

        Raises `Refused` with `FORBIDDEN`: altered, incomplete, or expired (the message then says what to do).
        """
        expires, media_type, filename, signature = (
            query.get(name, "") for name in ("expires", "type", "name", "signature")
        )
        well_formed = is_key(key) and _SECONDS.fullmatch(expires) is not None
        expected = self._signature(_claim(key, expires, media_type, filename)) if well_formed else ""
        if not expected or not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
            raise Refused(Code.FORBIDDEN, "This link is not valid: its signature does not fit.")
        if now >= int(expires):
            raise Refused(Code.FORBIDDEN, "This link has expired: read the job again to get a fresh one.")
        return Grant(key, media_type, filename, float(expires))

    def _signature(self, claim: str) -> str:
        digest = hmac.digest(self._secret, claim.encode(), "sha256")
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def disposition(media_type: str, filename: str) -> str:
    """The `Content-Disposition` of an answer: what a browser shows in place, or a download."""
    way = "inline" if _SHOWN_IN_PLACE.fullmatch(media_type) else "attachment"
    plain = re.sub(r"[^A-Za-z0-9 ._-]", "_", filename)[:200] or "file"
    return f"{way}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"


def _claim(key: str, expires: str, media_type: str, filename: str) -> str:
    """What is signed: the link's own text, in which quoting keeps each part to itself."""
    kind = quote(media_type, safe="/", errors="replace")
    name = quote(filename, safe="", errors="replace")
    return f"{key}?expires={expires}&type={kind}&name={name}"

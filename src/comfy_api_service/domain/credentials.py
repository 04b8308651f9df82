"""What callers prove themselves with: API keys, refresh tokens and tickets, and the scopes of keys.

A key is `cui_sk_`, a public id, a secret and a checksum; a token has no public id. The checksum tells a mistyped
or invented text from a real one without asking the database; it is no proof, only the digest is.
Texts are kept nowhere and never logged: what is stored is their digest, what is shown is a key's public id.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase

_KEY_PREFIX: Final = "cui_sk_"
_ID_LENGTH: Final = 12
_SECRET_LENGTH: Final = 30
"""178 bits."""
_TOKEN_LENGTH: Final = 43
"""256 bits."""
_CHECKSUM_LENGTH: Final = 6
"""62 to the 6th is more than the 2 to the 32nd of a CRC-32."""
_KEY: Final = re.compile(
    f"{_KEY_PREFIX}([0-9A-Za-z]{{{_ID_LENGTH}}})[0-9A-Za-z]{{{_SECRET_LENGTH + _CHECKSUM_LENGTH}}}"
)
_OPAQUE: Final = re.compile(f"[0-9A-Za-z]{{{_TOKEN_LENGTH + _CHECKSUM_LENGTH}}}")
_NO_DIGEST: Final = b"0" * 64

Source = Callable[[int], int]
"""An unpredictable number from 0 to below its argument."""


class Scope(StrEnum):
    """What a key may be used for."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class TokenKind(StrEnum):
    """The tokens that are no keys, by the prefix of their text."""

    REFRESH = "cui_rt_"
    TICKET = "cui_tk_"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A well-formed key, genuine or not; `text` is the whole of it and stays out of logs."""

    public_id: str
    text: str = field(repr=False)


def make_api_key(source: Source = secrets.randbelow) -> ApiKey:
    public_id = _random(_ID_LENGTH, source)
    return ApiKey(public_id, _checked(_KEY_PREFIX + public_id + _random(_SECRET_LENGTH, source)))


def parse_api_key(text: str) -> ApiKey | None:
    """The key that `text` is, to the letter, or None; whether it is a genuine one, `matches` tells."""
    form = _KEY.fullmatch(text)
    return ApiKey(form.group(1), text) if form is not None and _sum_fits(text) else None


def make_token(kind: TokenKind, source: Source = secrets.randbelow) -> str:
    return _checked(kind + _random(_TOKEN_LENGTH, source))


def well_formed_token(kind: TokenKind, text: str) -> bool:
    """Whether `text` could be a token of this kind, to the letter; whether it is one, `matches` tells."""
    return text.startswith(kind) and _OPAQUE.fullmatch(text, len(kind)) is not None and _sum_fits(text)


def digest(text: str) -> str:
    """SHA-256 in hex, as it is stored: a random secret of this length needs no slow hash."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def matches(sent: str, stored: str | None) -> bool:
    """Whether two digests are the same, in a time that does not tell where they differ.

    None, where no such key was found, is compared all the same and matches nothing.
    """
    expected = _NO_DIGEST if stored is None else stored.encode(errors="surrogatepass")
    return hmac.compare_digest(sent.encode(), expected) and stored is not None


def _random(length: int, source: Source) -> str:
    return "".join([BASE62[source(len(BASE62))] for _ in range(length)])


def _checked(text: str) -> str:
    return text + _checksum(text)


def _sum_fits(text: str) -> bool:
    """Of an ASCII text."""
    return text[-_CHECKSUM_LENGTH:] == _checksum(text[:-_CHECKSUM_LENGTH])


def _checksum(text: str) -> str:
    """CRC-32 in base 62, most significant digit first."""
    rest, digits = zlib.crc32(text.encode("ascii")), ""
    for _ in range(_CHECKSUM_LENGTH):
        rest, digit = divmod(rest, len(BASE62))
        digits = BASE62[digit] + digits
    return digits

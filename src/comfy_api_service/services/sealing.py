"""Secrets of webhooks as they are kept: encrypted with a key of the service, bound to their account.

They cannot be hashed as keys of callers are: each delivery is signed with them.
"""

import secrets
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES: Final = 12
_VERSION: Final = b"\x01"
_USE: Final = b"comfy-api-service webhook secrets 1"


class Unreadable(Exception):
    """It was sealed with another key, or for another account, or is damaged."""


class Sealer:
    """AES-256-GCM under a key made from the service's own."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(HKDF(SHA256(), 32, salt=None, info=_USE).derive(key))

    def seal(self, secret: bytes, account_id: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return _VERSION + nonce + self._cipher.encrypt(nonce, secret, account_id.encode())

    def open(self, sealed: bytes, account_id: str) -> bytes:
        """Raises `Unreadable`."""
        if sealed[:1] != _VERSION:
            raise Unreadable
        nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return self._cipher.decrypt(nonce, text, account_id.encode())
        except (InvalidTag, ValueError):
            raise Unreadable from None

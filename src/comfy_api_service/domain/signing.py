"""Signatures by Standard Webhooks: HMAC-SHA256 over id, time and body."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Final

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32


def make_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def shown(secret: bytes) -> str:
    """As receivers are given it."""
    return PREFIX + base64.b64encode(secret).decode()


def signature(secrets_: Iterable[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: one signature a secret; a receiver needs to know one of them."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    digests = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets_)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)

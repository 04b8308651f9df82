"""Access tokens made by hand, without the library."""

import base64
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

HEADER: Final[Mapping[str, Any]] = {"typ": "JWT", "alg": "HS256"}


def key_of(secret: bytes) -> bytes:
    return hmac.digest(secret, b"comfy-api access token 1", "sha256")


def signed_with(key: bytes) -> Callable[[bytes], bytes]:
    return lambda signed: hmac.digest(key, signed, "sha256")


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def written(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def token_of(header: object, payload: bytes, sign: Callable[[bytes], bytes]) -> str:
    body = f"{encoded(written(header))}.{encoded(payload)}"
    return f"{body}.{encoded(sign(body.encode()))}"

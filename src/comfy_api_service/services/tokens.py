"""Access tokens: short-lived JWTs that say which account and session calls, signed with HS256.

They have one form, and what differs from it by a letter is not read: the header is never interpreted, so that no
`alg`, `kid`, `jku` or `crit` in it can steer anything. Never log a token: until it expires, it is the caller.
"""

import hmac
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from joserfc.jws import JWSRegistry

from comfy_api_service.domain.clock import Clock

_NAME: Final = "comfy-api-service"
"""Issuer and audience in one: who makes the tokens is who reads them."""
_PURPOSE: Final = b"comfy-api access token 1"
"""Keeps the same secret's other signatures from being taken for a token's."""
_ALGORITHM: Final = "HS256"
_LONGEST: Final = 1024
_SKEW_SECONDS: Final = 60
"""How far the clocks of two API processes may lie apart."""


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What a valid token says; times are whole seconds since the epoch."""

    account_id: str
    session_id: str
    issued_at: int
    expires_at: int


class AccessTokens:
    """Makes and reads them; `lifetime` is in seconds, `secret` the service's own."""

    def __init__(self, secret: bytes, lifetime: float, clock: Clock) -> None:
        if not secret:
            raise ValueError("a secret for access tokens is needed")
        self._key = OctKey.import_key(hmac.digest(secret, _PURPOSE, "sha256"))
        self._lifetime = lifetime
        self._clock = clock
        self._registry = JWSRegistry(algorithms=[_ALGORITHM])
        self._head = self._signed({}).partition(".")[0] + "."

    def issue(self, account_id: str, session_id: str) -> str:
        now = self._clock.now()
        return self._signed(
            {
                "iss": _NAME,
                "aud": _NAME,
                "sub": account_id,
                "sid": session_id,
                "iat": int(now),
                "exp": int(now + self._lifetime),
            }
        )

    def read(self, text: str) -> AccessClaims | None:
        """What the token says if it is one of ours and good now, else None, whatever `text` is."""
        if len(text) > _LONGEST or not text.startswith(self._head):
            return None
        try:
            token = jwt.decode(text, self._key, registry=self._registry)
        except (JoseError, ValueError, RecursionError):
            return None
        claims = _claims(token.claims)
        if claims is None:
            return None
        now = self._clock.now()
        return claims if claims.issued_at <= now + _SKEW_SECONDS and now < claims.expires_at else None

    def _signed(self, claims: dict[str, Any]) -> str:
        return jwt.encode({"alg": _ALGORITHM}, claims, self._key, registry=self._registry)


def _claims(told: dict[str, Any]) -> AccessClaims | None:
    """None unless there are just the claims that `issue` writes, each of its type (True is no number)."""
    match told:
        case {
            "iss": str(by),
            "aud": str(to),
            "sub": str(account),
            "sid": str(session),
            "iat": iat,
            "exp": exp,
        }:
            whole = type(iat) is int and type(exp) is int
            ours = by == to == _NAME and len(told) == 6
            return AccessClaims(account, session, iat, exp) if whole and ours else None
        case _:
            return None

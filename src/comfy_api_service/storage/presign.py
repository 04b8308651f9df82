"""Links to objects of an S3-compatible store, signed with its own key: AWS Signature Version 4 in the query.

Own lines because the library behind `s3.py` signs neither for another host than it talks to nor the headers
that the answer shall carry. Never log a link whole: until it expires, it is the right to read.
"""

import hashlib
import hmac
import math
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit

LONGEST_SECONDS: Final = 7 * 86_400
"""No store takes a signature that is good for longer."""
_ALGORITHM: Final = "AWS4-HMAC-SHA256"


class Presigner:
    """Signs GET links to the objects of one bucket, under the address by which callers reach the store."""

    def __init__(self, *, base_url: str, bucket: str, region: str, access_key: str, secret_key: str) -> None:
        """`base_url`: scheme and host, as callers and store both see them: the host is signed."""
        self._base = base_url.rstrip("/")
        self._host = urlsplit(self._base).netloc.lower()
        self._bucket = bucket
        self._region = region
        self._access_key = access_key
        self._secret_key = secret_key
        self._key_of_day = ("", b"")

    def link(self, key: str, *, now: float, expires_at: float, query: Mapping[str, str]) -> str:
        """A link that is good from `now` (or before) until `expires_at`, seconds since the epoch.

        It ends after 7 days at the latest. `query`: what the store shall answer with, such as
        `response-content-type`; it is part of what is signed.
        """
        begins_at = math.floor(min(now, expires_at - 1))
        seconds = min(math.ceil(expires_at) - begins_at, LONGEST_SECONDS)
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(begins_at))
        scope = f"{moment[:8]}/{self._region}/s3/aws4_request"
        path = quote(f"/{self._bucket}/{key}", safe="/-_.~")
        claim = _canonical(
            {
                **query,
                "X-Amz-Algorithm": _ALGORITHM,
                "X-Amz-Credential": f"{self._access_key}/{scope}",
                "X-Amz-Date": moment,
                "X-Amz-Expires": str(seconds),
                "X-Amz-SignedHeaders": "host",
            }
        )
        request = f"GET\n{path}\n{claim}\nhost:{self._host}\n\nhost\nUNSIGNED-PAYLOAD"
        digest = hashlib.sha256(request.encode()).hexdigest()
        told = f"{_ALGORITHM}\n{moment}\n{scope}\n{digest}"
        signature = hmac.new(self._signing_key(moment[:8]), told.encode(), "sha256").hexdigest()
        return f"{self._base}{path}?{claim}&X-Amz-Signature={signature}"

    def _signing_key(self, day: str) -> bytes:
        """The key of a day, made once: four digests of the five that a link costs."""
        if self._key_of_day[0] != day:
            key = f"AWS4{self._secret_key}".encode()
            for part in (day, self._region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key_of_day = (day, key)
        return self._key_of_day[1]


def _canonical(query: Mapping[str, str]) -> str:
    """Sorted and quoted as the signature demands it, which is also how it is sent."""
    pairs = ((_quoted(name), _quoted(value)) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~", errors="replace")

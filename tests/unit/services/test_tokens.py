"""Access tokens: ours are read, and everything else is None."""

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.tokens import HEADER, encoded, key_of, signed_with, token_of, written

from comfy_api_service.services.tokens import AccessClaims, AccessTokens
from comfy_api_service.storage.links import LinkSigner

SECRET = b"a secret of the service, 32 bytes or more"
KEY = key_of(SECRET)
NOW = 1_800_000_000
LIFETIME = 900.0
CLAIMS: Mapping[str, Any] = {
    "iss": "comfy-api-service",
    "aud": "comfy-api-service",
    "sub": "acc_1",
    "sid": "ses_1",
    "iat": NOW,
    "exp": NOW + 900,
}
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Clock:
    def __init__(self) -> None:
        self.seconds = NOW + 0.5

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


def tokens(secret: bytes = SECRET, clock: Clock | None = None) -> AccessTokens:
    return AccessTokens(secret, LIFETIME, clock or Clock())


def hs256(signed: bytes) -> bytes:
    return signed_with(KEY)(signed)


def forged(
    header: object = HEADER,
    claims: object = CLAIMS,
    sign: Callable[[bytes], bytes] = hs256,
    *,
    payload: bytes | None = None,
) -> str:
    return token_of(header, written(claims) if payload is None else payload, sign)


GOOD = tokens().issue("acc_1", "ses_1")
HEAD, BODY, SIGNATURE = GOOD.split(".")


def test_what_is_issued_is_read() -> None:
    assert tokens().read(GOOD) == AccessClaims("acc_1", "ses_1", NOW, NOW + 900)


def test_it_is_a_jwt_as_others_would_make_it() -> None:
    assert forged() == GOOD


def test_it_fits_a_header_by_far() -> None:
    longest = tokens().issue("acc_" + "0" * 60, "ses_" + "0" * 60)
    assert len(longest) < 512
    assert tokens().read(longest) is not None


def test_it_is_good_until_its_end_by_the_clock_that_was_given() -> None:
    clock = Clock()
    reader = tokens(clock=clock)
    clock.seconds = NOW + 899.9
    assert reader.read(GOOD) is not None
    clock.seconds = NOW + 900.0
    assert reader.read(GOOD) is None
    clock.seconds = NOW + 1e9
    assert reader.read(GOOD) is None


def test_the_clock_of_another_process_may_be_a_minute_ahead_and_no_more() -> None:
    clock = Clock()
    reader = tokens(clock=clock)
    clock.seconds = NOW - 60.0
    assert reader.read(GOOD) is not None
    clock.seconds = NOW - 60.1
    assert reader.read(GOOD) is None
    clock.seconds = 0.0
    assert reader.read(GOOD) is None


def test_the_secret_is_needed_and_only_the_same_one_reads() -> None:
    assert tokens(SECRET + b"!").read(GOOD) is None
    with pytest.raises(ValueError, match="secret"):
        tokens(b"")


def test_links_are_signed_with_another_key() -> None:
    assert LinkSigner(SECRET, "")._secret != KEY
    assert tokens()._key.raw_value == KEY


EXTRAS: list[dict[str, object]] = [
    {"kid": "../../dev/null"},
    {"kid": "' OR 1=1 --"},
    {"kid": ""},
    {"jku": "https://attacker.example/keys"},
    {"x5u": "https://attacker.example/certificate"},
    {"jwk": {"kty": "oct", "k": encoded(KEY)}},
    {"x5c": ["MII="]},
    {"crit": ["exp"], "exp": 1},
    {"crit": ["b64"], "b64": False},
    {"crit": ["b64"], "b64": True},
    {"b64": False},
    {"crit": []},
    {"cty": "JWT"},
    {"zip": "DEF"},
    {"enc": "A256GCM"},
]
HEADERS: list[object] = [
    {"alg": "HS256", "typ": "JWT"},  # the same, otherwise written: no client of ours made it
    {"alg": "HS256"},
    {"typ": "JWT"},
    {"typ": "jwt", "alg": "HS256"},
    {"typ": "JWT", "alg": "hs256"},
    {"typ": "JWT", "alg": None},
    {"typ": "JWT", "alg": ["HS256"]},
    {"typ": "JWT", "alg": {"a": "HS256"}},
    *({"typ": "JWT", "alg": alg} for alg in ("none", "None", "NONE", "", "HS384", "RS256", "ES256", "dir")),
    *({**HEADER, **extra} for extra in EXTRAS),
    [],
    "HS256",
    None,
    1,
]


@pytest.mark.parametrize("header", HEADERS, ids=str)
def test_another_header_is_refused_even_with_a_true_signature(header: object) -> None:
    assert tokens().read(forged(header)) is None


@pytest.mark.parametrize(
    "text",
    [
        forged({"typ": "JWT", "alg": "none"}, sign=lambda _: b""),
        forged(sign=lambda _: b""),
        forged({"alg": "none"}, sign=lambda _: b"").rstrip("."),
        forged({"typ": "JWT", "alg": "HS512"}, sign=lambda body: hmac.digest(KEY, body, "sha512")),
        forged({"typ": "JWT", "alg": "HS384"}, sign=lambda body: hmac.digest(KEY, body, "sha384")),
        forged({"typ": "JWT", "alg": "RS256"}, sign=lambda body: hmac.digest(SECRET, body, "sha256")),
        forged(sign=lambda body: hmac.digest(SECRET, body, "sha256")),
        forged(sign=lambda body: hmac.digest(b"", body, "sha256")),
        forged(sign=lambda body: hmac.digest(KEY, body, "sha512")[:32]),
        forged(sign=lambda body: hmac.digest(KEY, body + b".", "sha256")),
        forged(sign=lambda body: hashlib.sha256(KEY + body).digest()),
        forged(sign=lambda _: bytes(32)),
        forged(sign=lambda body: hs256(body)[:-1]),
        forged(sign=lambda body: hs256(body) + b"\0"),
        forged(sign=lambda body: hs256(body)[:16]),
    ],
)
def test_another_algorithm_or_key_is_refused(text: str) -> None:
    assert tokens().read(text) is None


WRONG_CLAIMS: list[object] = [
    {},
    [],
    None,
    "claims",
    1,
    [CLAIMS],
    *({name: value for name, value in CLAIMS.items() if name != absent} for absent in CLAIMS),
    *(
        {**CLAIMS, name: value}
        for name in CLAIMS
        for value in (None, True, "", "x", 1.5, [], {}, [CLAIMS[name]], {"a": 1})
        if not (name in {"sub", "sid"} and isinstance(value, str))
    ),
    *({**CLAIMS, name: float(CLAIMS[name])} for name in ("iat", "exp")),
    *({**CLAIMS, name: str(CLAIMS[name])} for name in ("iat", "exp")),
    *({**CLAIMS, name: CLAIMS[name].upper()} for name in ("iss", "aud")),
    *({**CLAIMS, "exp": end} for end in (NOW, NOW - 1, 0, -1, -(10**30))),
    {**CLAIMS, "iat": NOW + 3600, "exp": NOW + 7200},
    {**CLAIMS, "iat": 10**30, "exp": 10**31},
    {**CLAIMS, "aud": "another-service"},
    {**CLAIMS, "aud": ["comfy-api-service", "another-service"]},
    {**CLAIMS, "iss": "another-service"},
    {**CLAIMS, "nbf": NOW + 800},
    {**CLAIMS, "role": "admin"},
]


@pytest.mark.parametrize("claims", WRONG_CLAIMS, ids=str)
def test_wrong_claims_are_refused_even_with_a_true_signature(claims: object) -> None:
    assert tokens().read(forged(claims=claims)) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"\xff" * 100,
        b"[" * 600,
        b'{"a":' * 110,
        b"NaN",
        written(CLAIMS)[:-1],
        written(CLAIMS) + b"}",
        written(CLAIMS).replace(str(NOW + 900).encode(), b"Infinity"),
        written(CLAIMS).replace(str(NOW + 900).encode(), b"NaN"),
        written(CLAIMS).replace(str(NOW + 900).encode(), b"1e999"),
        written(CLAIMS).replace(str(NOW + 900).encode(), b"9" * 400 + b".0"),
    ],
)
def test_a_payload_that_is_no_object_is_refused_even_with_a_true_signature(payload: bytes) -> None:
    assert tokens().read(forged(payload=payload)) is None


def test_a_nested_payload_at_the_end_of_the_stack_is_refused() -> None:
    """The parser's own error for depth comes sooner where the stack is deep already."""
    reader, bomb = tokens(), forged(payload=b"[" * 600)

    def deep(levels: int) -> AccessClaims | None:
        return deep(levels - 1) if levels else reader.read(bomb)

    assert deep(500) is None


JWE = ".".join(
    [
        encoded(written({"alg": "dir", "enc": "A256GCM"})),
        "",
        encoded(bytes(12)),
        encoded(bytes(40)),
        encoded(bytes(16)),
    ]
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        HEAD,
        f"{HEAD}.",
        f"{HEAD}..",
        f"{HEAD}.{BODY}",
        f"{HEAD}.{BODY}.",
        f"{HEAD}..{SIGNATURE}",
        f".{BODY}.{SIGNATURE}",
        f"{BODY}.{SIGNATURE}",
        f"{GOOD}.",
        f".{GOOD}",
        f"{GOOD}.{SIGNATURE}",
        f"{GOOD}.{BODY}.{SIGNATURE}",
        f"{HEAD}.{GOOD}",
        f"{GOOD}=",
        f"{HEAD}=.{BODY}.{SIGNATURE}",
        f"{HEAD}.{BODY}=.{SIGNATURE}",
        f"{HEAD}.{BODY}==.{SIGNATURE}",
        f"{GOOD}\n",
        f"{GOOD} ",
        f" {GOOD}",
        f"\t{GOOD}",
        f"{GOOD}\0",
        f"{GOOD}\r\n",
        f"{HEAD}. {BODY}.{SIGNATURE}",
        f"{HEAD}.{BODY}. {SIGNATURE}",
        f"{HEAD}.{BODY}\n.{SIGNATURE}",
        f"Bearer {GOOD}",
        f'"{GOOD}"',
        f"{HEAD}.{BODY}.{SIGNATURE[:-1]}",
        f"{HEAD}.{BODY}.{SIGNATURE}A",
        f"{HEAD}.{BODY[:-1]}.{SIGNATURE}",
        f"{HEAD}.{BODY}A.{SIGNATURE}",
        GOOD.replace(".", "\uff0e"),  # full width
        GOOD.swapcase(),
        json.dumps({"payload": BODY, "signatures": [{"protected": HEAD, "signature": SIGNATURE}]}),
        JWE,
        "cui_sk_" + "0" * 48,
        "\ud800",
        f"{GOOD}\udfff",
        "é" * 100,
    ],
)
def test_another_form_is_refused(text: str) -> None:
    assert tokens().read(text) is None


def test_the_bits_that_base64_leaves_over_are_no_second_spelling() -> None:
    last = ALPHABET.index(SIGNATURE[-1])
    assert last % 4 == 0
    for spare in (1, 2, 3):
        assert tokens().read(GOOD[:-1] + ALPHABET[last + spare]) is None


@pytest.mark.parametrize(
    "text",
    ["A" * 10_000_000, "." * 10_000_000, f"{HEAD}.{'A' * 10_000_000}.{SIGNATURE}"],
    ids=["a segment", "many segments", "a long payload"],
)
def test_a_huge_text_is_refused_before_anything_looks_into_it(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked_into(*_: object, **__: object) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr("comfy_api_service.services.tokens.jwt.decode", looked_into)
    assert tokens().read(text) is None


def test_a_long_token_is_refused_even_with_a_true_signature() -> None:
    long = [forged(claims={**CLAIMS, "sub": "a" * length}) for length in range(500, 700)]
    assert {len(text) <= 1024 for text in long} == {True, False}
    for text in long:
        assert (tokens().read(text) is not None) == (len(text) <= 1024)


def test_every_change_of_one_character_is_refused() -> None:
    reader = tokens()
    for place, character in enumerate(GOOD):
        for other in ALPHABET + ".=+/ ":
            if other != character:
                assert reader.read(GOOD[:place] + other + GOOD[place + 1 :]) is None


@given(st.text(st.characters(exclude_categories=())))
@example("\ud800")
def test_no_text_raises(text: str) -> None:
    reader = tokens()
    changed = (text, f"{HEAD}.{text}", f"{HEAD}.{BODY}.{text}", f"{HEAD}.{text}.{SIGNATURE}", GOOD + text)
    for one in changed:
        assert (reader.read(one) is None) == (one != GOOD)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(list(CLAIMS)), JSON), JSON)
def test_no_signed_claims_raise(changes: dict[str, Any], instead: object) -> None:
    reader = tokens()
    reader.read(forged(claims={**CLAIMS, **changes}))
    assert reader.read(forged(claims=instead)) is None
    assert reader.read(forged(header=instead)) is None


@given(st.binary(max_size=900))
def test_no_signed_payload_raises(payload: bytes) -> None:
    assert tokens().read(forged(payload=payload)) is None


@given(st.text(max_size=50), st.text(max_size=50))
def test_whatever_is_issued_is_read(account: str, session: str) -> None:
    read = tokens().read(tokens().issue(account, session))
    assert read == AccessClaims(account, session, NOW, NOW + 900)

"""Keys and tokens: what is made is read, and nothing else is."""

import hashlib
import math
import random
import re
import string
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from comfy_api_service.domain.credentials import (
    BASE62,
    ApiKey,
    Scope,
    TokenKind,
    digest,
    make_api_key,
    make_token,
    matches,
    parse_api_key,
    well_formed_token,
)

DRAWN = random.Random(4).randrange
"""The same in every process, so that each collects the same tests."""
KEY = make_api_key(DRAWN)
OTHER = make_api_key(DRAWN)
REFRESH = make_token(TokenKind.REFRESH, DRAWN)
KINDS = list(TokenKind)
LOOK_ALIKES = {
    "a": "\u0430",  # Cyrillic
    "c": "\u0441",  # Cyrillic
    "0": "\u0660",  # Arabic-Indic
    "1": "\uff11",  # full width
    "_": "\uff3f",  # full width
    "s": "\u017f",  # the long s: the lower case of S, for a pattern that ignores case
    "k": "\u212a",  # the sign of the kelvin, likewise
}


def resummed(body: str) -> str:
    """The body with the checksum that fits it, as anybody can compute it."""
    value, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits = BASE62[digit] + digits
    return body + digits


def test_a_key_has_its_form_and_is_read_again() -> None:
    assert re.fullmatch(r"cui_sk_[0-9A-Za-z]{48}", KEY.text)
    assert KEY.public_id == KEY.text[7:19]
    assert parse_api_key(KEY.text) == KEY
    assert resummed(KEY.text[:-6]) == KEY.text


def test_a_known_key_stays_good() -> None:
    """Keys outlive releases: form, alphabet and checksum of one that was given out cannot change."""
    numbers = iter(range(42))
    key = make_api_key(lambda below: next(numbers) % below)
    assert key == ApiKey("0123456789AB", "cui_sk_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef0KEFx3")


def test_the_secret_has_the_bits_that_are_promised() -> None:
    assert math.log2(62) * len(KEY.text[19:-6]) >= 160
    assert math.log2(62) * len(REFRESH[7:-6]) >= 256


def test_every_character_comes_from_the_source() -> None:
    asked: list[int] = []

    def source(below: int) -> int:
        asked.append(below)
        return below - 1

    assert make_api_key(source).text[7:-6] == "z" * 42
    assert make_token(TokenKind.TICKET, source)[7:-6] == "z" * 43
    assert asked == [62] * 85


def test_no_two_are_alike() -> None:
    made = [make_api_key() for _ in range(500)]
    assert len({key.public_id for key in made}) == len({key.text[19:] for key in made}) == 500
    assert set("".join(key.text[7:] for key in made)) == set(string.digits + string.ascii_letters)


def test_a_key_shows_its_id_and_not_its_secret() -> None:
    assert KEY.public_id in repr(KEY)
    assert KEY.text[19:] not in repr(KEY)
    assert KEY.text[19:] not in f"{KEY}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cui_sk_",
        KEY.text[:-1],
        KEY.text[1:],
        KEY.text + "0",
        KEY.text + "=",
        KEY.text + "==",
        KEY.text + "\n",
        KEY.text + "\0",
        KEY.text + " ",
        " " + KEY.text,
        "\ufeff" + KEY.text,
        f"{KEY.text} {KEY.text}",
        f"Bearer {KEY.text}",
        f'"{KEY.text}"',
        KEY.text[:19] + "_" + KEY.text[19:],
        KEY.text[:19] + "-" + KEY.text[20:],
        KEY.text.upper(),
        KEY.text.lower(),
        KEY.text.swapcase(),
        "CUI_SK_" + KEY.text[7:],
        "Cui_sk_" + KEY.text[7:],
        "cui-sk-" + KEY.text[7:],
        "sk_" + KEY.text[7:],
        KEY.text[7:],
        resummed("CUI_SK_" + KEY.text[7:-6]),
        resummed("cui_rt_" + KEY.text[7:-6]),
        resummed("cui_pk_" + KEY.text[7:-6]),
        resummed(KEY.text[:-7]),
        resummed(KEY.text[:-6] + "0"),
        resummed(KEY.text[:19] + "_" + KEY.text[20:-6]),
        KEY.text[:-6] + "000000",
        KEY.text[:-6] + "zzzzzz",
        KEY.text[:-6] + KEY.text[-6:][::-1] + "0",
        "cui_sk_" + OTHER.public_id + KEY.text[19:],
        KEY.text[:19] + OTHER.text[19:],
        KEY.text[:-6] + OTHER.text[-6:],
        REFRESH,
        make_token(TokenKind.TICKET, DRAWN),
        "cui_sk_" + "A" * 1_000_000,
        "\ud800" * 55,
    ],
    ids=lambda text: ascii(text[:70]),
)
def test_what_is_not_a_key_to_the_letter_is_none(text: str) -> None:
    assert parse_api_key(text) is None


@pytest.mark.parametrize(("plain", "alike"), LOOK_ALIKES.items())
def test_letters_that_look_alike_are_others(plain: str, alike: str) -> None:
    key = resummed("cui_sk_" + "abcksABCKS01" + "01abcks" * 4 + "zz")
    assert parse_api_key(key) is not None
    places = [place for place, character in enumerate(key) if character == plain]
    assert places
    for place in places:
        assert parse_api_key(key[:place] + alike + key[place + 1 :]) is None
        assert parse_api_key(resummed(key[:place] + alike + key[place + 1 : -6])) is None


def test_the_id_of_one_with_the_secret_of_another_is_refused_by_its_digest() -> None:
    """Anybody can compute the checksum anew; the digest he cannot."""
    forged = parse_api_key(resummed("cui_sk_" + KEY.public_id + OTHER.text[19:-6]))
    assert forged is not None
    assert forged.public_id == KEY.public_id
    assert not matches(digest(forged.text), digest(KEY.text))
    assert not matches(digest(forged.text), digest(OTHER.text))


@given(place=st.integers(0, 54), character=st.characters())
def test_every_change_of_one_character_is_refused(place: int, character: str) -> None:
    changed = KEY.text[:place] + character + KEY.text[place + 1 :]
    assert (parse_api_key(changed) is None) == (changed != KEY.text)


def test_every_change_within_the_alphabet_is_refused() -> None:
    for place in range(len(KEY.text)):
        for character in BASE62 + "_":
            changed = KEY.text[:place] + character + KEY.text[place + 1 :]
            assert (parse_api_key(changed) is None) == (changed != KEY.text)
    for place in range(len(REFRESH)):
        for character in BASE62 + "_":
            changed = REFRESH[:place] + character + REFRESH[place + 1 :]
            assert well_formed_token(TokenKind.REFRESH, changed) == (changed == REFRESH)


@given(st.text(st.characters(exclude_categories=())))
@example("\ud800")
@example("cui_sk_\udfff")
def test_no_text_raises(text: str) -> None:
    for one in (text, "cui_sk_" + text, KEY.text + text, text + KEY.text):
        assert (parse_api_key(one) is None) == (one != KEY.text)
        assert not any(well_formed_token(kind, one) for kind in KINDS)
        assert matches(digest(one), digest(one))
        assert not matches(digest(one), one)
        assert not matches(digest(one), None)


@given(st.binary(min_size=42, max_size=42))
def test_whatever_is_made_is_read(drawn: bytes) -> None:
    numbers = iter(drawn)
    key = make_api_key(lambda below: next(numbers) % below)
    assert parse_api_key(key.text) == key


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_of_its_kind_and_of_no_other(kind: TokenKind) -> None:
    token = make_token(kind)
    assert re.fullmatch(rf"{kind}[0-9A-Za-z]{{49}}", token)
    assert [other for other in KINDS if well_formed_token(other, token)] == [kind]
    for other in KINDS:
        assert well_formed_token(other, resummed(other + token[7:-6]))
        assert other == kind or not well_formed_token(other, other + token[7:])
    for bad in (token[:-1], token + "0", token + "\n", " " + token, token.upper(), token + "=", "", kind):
        assert not well_formed_token(kind, bad)
        assert not well_formed_token(kind, resummed(bad))


def test_the_digest_is_sha_256_of_the_whole_text() -> None:
    assert digest(KEY.text) == hashlib.sha256(KEY.text.encode()).hexdigest()
    assert matches(digest(KEY.text), digest(KEY.text))
    assert not matches(digest(KEY.text), digest(KEY.text).upper())
    assert not matches(digest(KEY.text), digest(KEY.text)[:-1])
    assert not matches(digest(KEY.text), "")
    assert not matches(digest(KEY.text), "é" * 64)


def test_no_digest_matches_nothing() -> None:
    assert not matches(digest(KEY.text), None)
    assert not matches(digest(""), None)


def test_scopes_are_those_of_the_api() -> None:
    assert [str(scope) for scope in Scope] == ["read", "write", "admin"]

"""Passwords are hashed beside the loop, one at a time, and judged by rules before that."""

import asyncio
import threading
import unicodedata
from collections.abc import Iterator

import pytest
from argon2 import extract_parameters
from hypothesis import example, given
from hypothesis import strategies as st
from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

from comfy_api_service.domain.errors import Code, Unavailable, ValidationFailed
from comfy_api_service.services.passwords import (
    LONGEST,
    RETRY_SECONDS,
    SHORTEST,
    WAITING_AT_MOST,
    Passwords,
    admitted,
)

PASSWORD = "correct horse battery"


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = Passwords()
    yield made
    made.close()


class Watched(PasswordHash):
    """A cheap one that can be held, and notes which threads were in it and how many at a time."""

    def __init__(self) -> None:
        super().__init__([Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1)])
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun = threading.Event()
        self.threads: set[int] = set()
        self.verified: list[str | bytes] = []
        self.most = 0
        self._inside = 0
        self._lock = threading.Lock()

    def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
        self._enter()
        try:
            return super().hash(password, salt=salt)
        finally:
            self._leave()

    def verify(self, password: str | bytes, hash: str | bytes) -> bool:  # noqa: A002 - the library's name
        self.verified.append(hash)
        self._enter()
        try:
            return super().verify(password, hash)
        finally:
            self._leave()

    def _enter(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
            self.threads.add(threading.get_ident())
        self.begun.set()
        assert self.go_on.wait(60), "nobody let it go on: the loop was not free"

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1


@pytest.fixture
def watched(passwords: Passwords) -> Iterator[Watched]:
    hasher = Watched()
    passwords._hasher = hasher
    yield hasher
    hasher.go_on.set()


async def test_a_password_is_verified_against_its_hash_and_no_other(passwords: Passwords) -> None:
    first, second = await passwords.hash(PASSWORD), await passwords.hash(PASSWORD)
    assert first != second
    assert PASSWORD not in first
    assert await passwords.verify(PASSWORD, first)
    assert not await passwords.verify(PASSWORD + " ", first)
    assert not await passwords.verify(PASSWORD.upper(), first)


async def test_an_absent_account_costs_what_a_present_one_does(
    passwords: Passwords, watched: Watched
) -> None:
    assert not await passwords.verify(PASSWORD, None)
    assert len(watched.verified) == 1
    nobody, real = watched.verified[0], Passwords()._hasher.hash(PASSWORD)
    assert isinstance(nobody, str)
    assert extract_parameters(nobody) == extract_parameters(real)
    assert len(nobody) == len(real)
    assert nobody != Passwords()._nobody


async def test_even_if_it_fits_the_hash_of_nobody_is_nobody(passwords: Passwords, watched: Watched) -> None:
    passwords._nobody = watched.hash(PASSWORD)
    assert not await passwords.verify(PASSWORD, None)


def test_a_hash_takes_one_processor_and_at_least_what_owasp_asks_for() -> None:
    parameters = extract_parameters(Passwords()._hasher.hash(PASSWORD))
    assert parameters.type.name == "ID"
    assert parameters.parallelism == 1
    assert parameters.time_cost >= 2
    assert parameters.memory_cost >= 19 * 1024


async def test_the_loop_is_free_while_a_password_is_hashed(passwords: Passwords, watched: Watched) -> None:
    watched.go_on.clear()
    hashing = asyncio.create_task(passwords.hash(PASSWORD))

    async def other_request() -> None:
        assert await asyncio.to_thread(watched.begun.wait, 60)
        assert not hashing.done()
        watched.go_on.set()

    await asyncio.gather(other_request(), hashing)
    assert threading.get_ident() not in watched.threads


async def test_one_is_hashed_at_a_time(passwords: Passwords, watched: Watched) -> None:
    watched.go_on.clear()
    stored = Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    passwords._nobody = stored
    logins = [passwords.verify(PASSWORD, stored if turn % 3 else None) for turn in range(30)]
    hashings = [passwords.hash(PASSWORD) for _ in range(20)]
    burst = asyncio.gather(*logins, *hashings)
    assert await asyncio.to_thread(watched.begun.wait, 60)
    watched.go_on.set()
    outcomes = await burst
    assert outcomes[:30] == [turn % 3 != 0 for turn in range(30)]
    assert watched.most == 1
    assert len(watched.threads) == 1


async def test_who_comes_to_a_full_line_is_told_to_come_back(passwords: Passwords, watched: Watched) -> None:
    watched.go_on.clear()
    line = [asyncio.create_task(passwords.hash(PASSWORD)) for _ in range(1 + WAITING_AT_MOST)]
    await asyncio.sleep(0)
    for refused in (passwords.hash(PASSWORD), passwords.verify(PASSWORD, None)):
        with pytest.raises(Unavailable) as caught:
            await refused
        assert caught.value.code == Code.SERVICE_UNAVAILABLE
        assert caught.value.retry_after == RETRY_SECONDS
    watched.go_on.set()
    assert all(await asyncio.gather(*line))
    assert not await passwords.verify(PASSWORD, None)


async def test_who_leaves_the_line_makes_room_and_is_not_hashed(
    passwords: Passwords, watched: Watched
) -> None:
    watched.go_on.clear()
    line = [asyncio.create_task(passwords.verify(PASSWORD, None)) for _ in range(1 + WAITING_AT_MOST)]
    assert await asyncio.to_thread(watched.begun.wait, 60)
    for task in line[1:]:
        task.cancel()
    left = await asyncio.gather(*line[1:], return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in left)
    again = asyncio.create_task(passwords.verify(PASSWORD, None))
    watched.go_on.set()
    assert not await line[0]
    assert not await again
    assert len(watched.verified) == 2


async def test_closing_waits_for_the_one_at_work_and_cancels_the_line(
    passwords: Passwords, watched: Watched
) -> None:
    watched.go_on.clear()
    line = [asyncio.create_task(passwords.verify(PASSWORD, None)) for _ in range(5)]
    assert await asyncio.to_thread(watched.begun.wait, 60)
    closing = asyncio.create_task(asyncio.to_thread(passwords.close))
    left = await asyncio.gather(*line[1:], return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in left)
    assert not closing.done()
    watched.go_on.set()
    await closing
    assert not await line[0]
    assert len(watched.verified) == 1


async def test_a_text_that_breaks_the_rules_is_not_hashed(passwords: Passwords, watched: Watched) -> None:
    stored = watched.hash(PASSWORD)
    watched.threads.clear()
    for bad in ("", "seven77", "x" * (LONGEST + 1), "x" * 10_000_000, "surrogate\ud800", "e\u0301" * 7):
        with pytest.raises(ValidationFailed) as caught:
            await passwords.hash(bad)
        assert not bad or bad not in f"{caught.value} {caught.value.details}"
        assert not await passwords.verify(bad, stored)
        assert not await passwords.verify(bad, None)
    assert not watched.threads


@pytest.mark.parametrize(
    "good", ["x" * SHORTEST, "x" * LONGEST, "pass\0word", "пароль-8", "🐎🔋🐎🔋🐎🔋🐎🔋"]
)
async def test_what_the_rules_admit(passwords: Passwords, watched: Watched, good: str) -> None:
    del watched
    assert await passwords.verify(good, await passwords.hash(good))


async def test_the_end_of_a_long_password_counts(passwords: Passwords, watched: Watched) -> None:
    del watched
    stored = await passwords.hash("x" * LONGEST)
    assert not await passwords.verify("x" * (LONGEST - 1), stored)
    assert not await passwords.verify("x" * (LONGEST - 1) + "y", stored)


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
async def test_one_password_however_its_letters_are_sent(
    passwords: Passwords, watched: Watched, form: str
) -> None:
    del watched
    stored = await passwords.hash("Ångström-é-１２３")
    assert await passwords.verify(unicodedata.normalize(form, "Ångström-é-１２３"), stored)  # type: ignore[arg-type]


@given(st.text(st.characters(exclude_categories=()), max_size=300))
@example("\ufdfa" * LONGEST)
@example("e" + "\u0301\u0323" * 2000)
@example("\ud800" * 8)
def test_every_text_is_admitted_or_refused(text: str) -> None:
    try:
        kept = admitted(text)
    except ValidationFailed:
        return
    assert SHORTEST <= len(kept) <= LONGEST
    assert kept.encode()
    assert admitted(kept) == kept


async def test_what_is_stored_and_is_no_hash_is_a_fault_and_not_a_wrong_password(
    passwords: Passwords,
) -> None:
    with pytest.raises(UnknownHashError) as caught:
        await passwords.verify(PASSWORD, "plain text")
    assert PASSWORD not in str(caught.value)
    assert "plain text" not in str(caught.value)

"""Passwords: their rules, and their hashing with argon2id, off the event loop and one at a time.

argon2 frees the interpreter, so hashing beside the loop takes nothing from it but a processor, and with one thread
and one lane never more than one: a burst of logins waits in line while other requests are answered.
Never log or store a password, nor put one into an error.
"""

import asyncio
import base64
import secrets
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from comfy_api_service.domain.errors import FieldError, Unavailable, ValidationFailed

T = TypeVar("T")

SHORTEST: Final = 8
LONGEST: Final = 256
WAITING_AT_MOST: Final = 200
RETRY_SECONDS: Final = 30.0
"""About as long as a full line takes, at 150 ms each."""

_LONGEST_SENT: Final = 4 * LONGEST
"""Before normalisation, which joins a letter and its marks, and is itself work to be bounded."""
_PASSES: Final = 3
_MEMORY_KIB: Final = 64 * 1024
_LANES: Final = 1
"""The library's own memory and passes, but not its four lanes: each is a thread, and one hash would then take
every processor of a small machine. The work of who guesses stays the same."""
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32


class Passwords:
    def __init__(self) -> None:
        self._hasher = PasswordHash(
            [
                Argon2Hasher(
                    time_cost=_PASSES,
                    memory_cost=_MEMORY_KIB,
                    parallelism=_LANES,
                    hash_len=_HASH_BYTES,
                    salt_len=_SALT_BYTES,
                )
            ]
        )
        self._nobody = _hash_of_no_password()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="passwords")
        self._asked = 0
        """How many hashings are running or waiting."""

    async def hash(self, password: str) -> str:
        """The hash to store, with its salt and parameters in it.

        Raises `ValidationFailed` if the password breaks the rules, `Unavailable` if too many wait.
        """
        text = admitted(password)
        return await self._in_turn(lambda: self._hasher.hash(text))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether `stored` is a hash of this password; None, for an account that is absent, takes as long.

        A text that the rules forbid is nobody's password: False at once, whosesoever it should be.
        Raises `Unavailable` if too many wait, pwdlib's `UnknownHashError` if `stored` is no hash at all.
        """
        try:
            text = admitted(password)
        except ValidationFailed:
            return False
        known = self._nobody if stored is None else stored
        fits = await self._in_turn(lambda: self._hasher.verify(text, known))
        return fits and stored is not None

    def close(self) -> None:
        """Waits for the one that is being hashed; those in line are cancelled."""
        self._thread.shutdown(cancel_futures=True)

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._asked > WAITING_AT_MOST:
            raise Unavailable("Too many logins are waiting.", retry_after=RETRY_SECONDS)
        self._asked += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        finally:
            self._asked -= 1


def admitted(password: str) -> str:
    """The password as it is hashed: in Unicode's form NFKC, as NIST SP 800-63B advises.

    The same keys pressed give the same text then, whether a system sends a letter and its accent as one or as two
    characters, digits in full or half width. Raises `ValidationFailed`, which does not repeat the password.
    """
    text = unicodedata.normalize("NFKC", password) if len(password) <= _LONGEST_SENT else password
    if not SHORTEST <= len(text) <= LONGEST:
        message = f"a password has {SHORTEST} to {LONGEST} characters"
        raise ValidationFailed([FieldError("password", message, bound=[SHORTEST, LONGEST])])
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValidationFailed([FieldError("password", "a password is a text of whole characters")])
    return text


def _hash_of_no_password() -> str:
    """Of the form and cost of a real one, but drawn: nothing hashes to it, and making it takes no time."""
    salt, drawn = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        for size in (_SALT_BYTES, _HASH_BYTES)
    )
    return f"$argon2id$v=19$m={_MEMORY_KIB},t={_PASSES},p={_LANES}${salt}${drawn}"

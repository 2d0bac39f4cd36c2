"""Passwords: argon2id in a bounded pool, and the rule against weak ones."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from zxcvbn import zxcvbn
from zxcvbn.matching import L33T_TABLE

from src.config import get_settings
from src.exceptions import BusinessException
from src.shared.errors import ErrorCode

T = TypeVar("T")

# OWASP Password Storage Cheat Sheet: argon2id with 19 MiB, 2 iterations, 1 lane.
_HASHER = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19 * 1024, parallelism=1),))
# Its cost grows with the square of the length, and 48 characters that are hard to guess are enough.
_JUDGED_CHARACTERS = 48
_SIGNS = frozenset(sign for signs in L33T_TABLE.values() for sign in signs if not sign.isdigit())
_JUDGED_SIGNS = 3
_WEAKEST_SCORE = 2


@cache
def _pool() -> ThreadPoolExecutor:
    """Hashing burns a core and 19 MiB each: as many at once as settings allow, the others wait."""
    return ThreadPoolExecutor(get_settings().auth.password_hash_concurrency, thread_name_prefix="argon2")


@cache
def _turns(_loop: asyncio.AbstractEventLoop) -> asyncio.Semaphore:
    return asyncio.Semaphore(get_settings().auth.password_hash_concurrency)


def turn() -> asyncio.Semaphore:
    """`async with turn():` waits until a password can be checked at once."""
    return _turns(asyncio.get_running_loop())


@cache
def _decoy() -> str:
    return _HASHER.hash("a password that nobody has")


async def hash_password(password: str, *, known_about_user: tuple[str, ...] = ()) -> str:
    """Refused: WEAK_PASSWORD, when an attacker guesses it within a million tries (zxcvbn score 0 or 1)."""
    return await _in_pool(partial(_judge_and_hash, password, known_about_user))


def _judge_and_hash(password: str, known_about_user: tuple[str, ...]) -> str:
    judged = zxcvbn(
        _bounded(password[:_JUDGED_CHARACTERS]), user_inputs=[known[:_JUDGED_CHARACTERS] for known in known_about_user]
    )
    if judged["score"] < _WEAKEST_SCORE:
        raise BusinessException(ErrorCode.WEAK_PASSWORD)
    return _HASHER.hash(password)


def _bounded(password: str) -> str:
    """For p@$$w0rd zxcvbn tries what each sign may stand for, in all combinations: with eleven different ones that is
    seconds. Behind more than three no word is hidden any more; digits stay, since they come in sequences and dates."""
    signs = [letter for letter in dict.fromkeys(password) if letter in _SIGNS]
    return password.translate(dict.fromkeys(map(ord, signs[_JUDGED_SIGNS:]), "~"))


async def verify_password(password: str, password_hash: str | None) -> tuple[bool, str | None]:
    """(right?, fresh hash if the stored one is of older parameters). Without a hash it costs the same and is wrong."""
    return await _in_pool(partial(_verify, password, password_hash))


def _verify(password: str, password_hash: str | None) -> tuple[bool, str | None]:
    if password_hash is None:
        _HASHER.verify(password, _decoy())
        return False, None
    return _HASHER.verify_and_update(password, password_hash)


async def _in_pool(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_pool(), work)

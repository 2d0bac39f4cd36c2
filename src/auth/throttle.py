"""How often somebody may try. Counted in the shared cache; when that is away, locally and more strictly."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from time import monotonic, time
from uuid import UUID

from src.cache import CacheProtocol, CacheUnavailableError, get_cache
from src.cache.memory import MemoryCache
from src.config import get_settings
from src.exceptions import BusinessException
from src.shared.cache_keys import cache_key
from src.shared.errors import ErrorCode

_FAILURE_WINDOW_SECONDS = 300
_MINUTE_SECONDS = 60
_HOUR_SECONDS = 3600
_RENEWALS = 5
# Each process counts for itself then, so that several of them together stay near the limit.
_LOCAL_SHARE = 2
_LOCAL_ENTRIES = 100_000
_MOST_METERS = 10_000
_SETTLED_EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Limit:
    name: str
    allowed: int
    window_seconds: int

    def window(self, subject: str) -> tuple[str, int]:
        """(key of the current window, seconds until the next one)."""
        number, passed = divmod(int(time()), self.window_seconds)
        # Hashed: neither an address nor an account name belongs in a cache.
        digest = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return cache_key("throttle", self.name, number, digest, principal=None), self.window_seconds - passed


async def refuse_exhausted_login(account: str, address: str) -> None:
    """Refused: TOO_MANY_ATTEMPTS, when this account from there, or this address as a whole, failed too often."""
    for limit, subject in _failures(account, address):
        await _refuse_exhausted(limit, subject)


async def refuse_exhausted_overall() -> None:
    """For who was never there before. Refused: TOO_MANY_ATTEMPTS, when the whole world failed too often."""
    await _refuse_exhausted(*_failures_overall())


async def count_failed_login(account: str, address: str) -> list[str]:
    """The limits that were reached just now, by name."""
    limits = (*_failures(account, address), _failures_overall())
    return [limit.name for limit, subject in limits if await _count(limit, subject) == limit.allowed]


def _failures_overall() -> tuple[Limit, str]:
    return Limit("login-overall", get_settings().auth.login_failures_overall, _FAILURE_WINDOW_SECONDS), ""


def _failures(account: str, address: str) -> tuple[tuple[Limit, str], ...]:
    auth = get_settings().auth
    return (
        (
            Limit("login-account", auth.login_failures_per_account, _FAILURE_WINDOW_SECONDS),
            f"{account}|{prefix_of(address)}",
        ),
        (Limit("login-address", auth.login_failures_per_address, _FAILURE_WINDOW_SECONDS), _caller(address)),
    )


async def spend_login(address: str) -> None:
    """For log-ins and refreshes that succeed. Refused: TOO_MANY_ATTEMPTS."""
    await _spend(Limit("login", get_settings().auth.logins_per_address, _MINUTE_SECONDS), _caller(address))


async def spend_registration(address: str) -> None:
    """Refused: TOO_MANY_ATTEMPTS."""
    await _spend(_registrations(), _caller(address))


async def give_back_registration(address: str) -> None:
    """For one that was not valid."""
    await _count(_registrations(), _caller(address), by=-1)


async def spend_confirmation(account: str) -> None:
    """For each time that a password is asked for once more: right ones cost as much as wrong ones. Refused: TOO_MANY_ATTEMPTS."""
    await _spend(Limit("confirm", get_settings().auth.confirmations_per_account, _MINUTE_SECONDS), account)


class Guessing(StrEnum):
    """What wrong codes of an authenticator app are counted for."""

    FACTOR = "second-factor"
    SET_UP = "totp-set-up"
    """Apart: whoever has a token must not keep its owner from setting one up, nor out."""


async def spend_guess(what: Guessing, user_id: UUID) -> bool:
    """Before a code is looked at, so that a thousand guesses at once are not a thousand guesses; a right one is given
    back. Whether it is the last one that is looked at. Refused: TOO_MANY_ATTEMPTS."""
    limit = _guesses(what)
    count = await _count(limit, str(user_id))
    if count > limit.allowed:
        _refuse(limit, str(user_id))
    return count == limit.allowed


async def give_back_guess(what: Guessing, user_id: UUID) -> None:
    await _count(_guesses(what), str(user_id), by=-1)


async def may_note(what: str, subject: str) -> bool:
    """Whether one more refusal is written down. For what is looked at without end: who tries would write as fast as they
    can ask."""
    limit = Limit(f"noted-{what}", get_settings().auth.refusals_noted, _HOUR_SECONDS)
    return await _count(limit, _caller(subject)) <= limit.allowed


def _guesses(what: Guessing) -> Limit:
    return Limit(what.value, get_settings().auth.second_factor_failures_per_account, _HOUR_SECONDS)


async def spend_recovery_codes(user_id: UUID) -> None:
    """For new ones. Refused: TOO_MANY_ATTEMPTS."""
    await _spend(Limit("recovery-codes", _RENEWALS, _HOUR_SECONDS), str(user_id))


async def spend_mail_request(address: str) -> None:
    """For what sends a mail, or takes what one gave. Refused: TOO_MANY_ATTEMPTS."""
    await _spend(Limit("mail", get_settings().auth.mail_requests_per_address, _MINUTE_SECONDS), _caller(address))


@dataclass(slots=True)
class _Meter:
    """Requests by one API key in one window. Counted here, and settled with the others once a second: the cache is not
    asked with each request."""

    window: str
    elsewhere: int = 0
    here: int = 0
    unsettled: int = 0
    settled_at: float = 0.0


_meters: dict[UUID, _Meter] = {}


async def spend_api_key(key_id: UUID) -> None:
    """By each request. Refused: TOO_MANY_ATTEMPTS."""
    limit = Limit("api-key", get_settings().auth.api_key_requests_per_minute, _MINUTE_SECONDS)
    window, wait_seconds = limit.window(str(key_id))
    meter = _meters.get(key_id)
    if meter is None or meter.window != window:
        if len(_meters) >= _MOST_METERS:
            del _meters[next(iter(_meters))]
        meter = _meters[key_id] = _Meter(window)
    meter.here += 1
    meter.unsettled += 1
    now = monotonic()
    if now - meter.settled_at >= _SETTLED_EVERY_SECONDS:
        meter.settled_at, by, meter.unsettled = now, meter.unsettled, 0
        meter.elsewhere = await _count(limit, str(key_id), by=by) - meter.here + meter.unsettled
    if meter.elsewhere + meter.here > limit.allowed:
        raise BusinessException(ErrorCode.TOO_MANY_ATTEMPTS, data={"retry_after_seconds": wait_seconds})


def _registrations() -> Limit:
    return Limit("register", get_settings().auth.registrations_per_address, _MINUTE_SECONDS)


async def _spend(limit: Limit, subject: str) -> None:
    if await _count(limit, subject) > limit.allowed:
        _refuse(limit, subject)


async def _refuse_exhausted(limit: Limit, subject: str) -> None:
    if await _count(limit, subject, by=0) >= limit.allowed:
        _refuse(limit, subject)


def _refuse(limit: Limit, subject: str) -> None:
    _, wait_seconds = limit.window(subject)
    raise BusinessException(ErrorCode.TOO_MANY_ATTEMPTS, data={"retry_after_seconds": wait_seconds})


async def _count(limit: Limit, subject: str, *, by: int = 1) -> int:
    key, wait_seconds = limit.window(subject)
    try:
        return await (await _shared()).increment(key, by, ttl=wait_seconds + 1)
    except CacheUnavailableError:
        return await _local().increment(key, by, ttl=wait_seconds + 1) * _LOCAL_SHARE


async def _shared() -> CacheProtocol:
    """The data cache may drop what is old when it is full; with it in memory, counters have a place of their own."""
    shared = await get_cache()
    return _local() if isinstance(shared, MemoryCache) else shared


@cache
def _local() -> MemoryCache:
    return MemoryCache(get_settings().cache.model_copy(update={"max_entries": _LOCAL_ENTRIES}))


def _caller(address: str) -> str:
    """Whom an address stands for: of IPv6 everybody has at least a /64 to choose from."""
    parsed = _parsed(address)
    return prefix_of(address) if isinstance(parsed, IPv6Address) else str(parsed or address)


def prefix_of(address: str) -> str:
    """What one customer of a provider can easily move within: /24 of IPv4, /64 of IPv6."""
    parsed = _parsed(address)
    if parsed is None:
        return address
    return str(ip_network((parsed, 24 if isinstance(parsed, IPv4Address) else 64), strict=False))


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    # ::ffff:192.0.2.1 is 192.0.2.1, as a socket for both kinds tells it.
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed

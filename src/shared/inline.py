"""Marks for dependencies that may run on the event loop as they stand, where FastAPI would take a detour."""

from collections.abc import AsyncIterator, Callable, MutableMapping
from types import TracebackType
from typing import Any, Protocol, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
Scope = MutableMapping[str, Any]
"""ASGI's."""
_MARK = "__undercroft_inline__"
_FOR_VALUE = "__undercroft_for_its_value__"
_CONTEXT = "__undercroft_context__"
_PLAIN = "__undercroft_plain__"
_READER = "__undercroft_reader__"


def inline(dependency: F) -> F:
    """A plain function that only computes needs no thread; an async generator that always raises again what is thrown
    into it needs no exit stack around it."""
    setattr(dependency, _MARK, True)
    return dependency


def is_inline(dependency: object) -> bool:
    return getattr(dependency, _MARK, False) is True


def for_its_value(dependency: F) -> F:
    """It refuses nobody by itself, its own dependencies do: where nobody takes its value it need not be called."""
    setattr(dependency, _FOR_VALUE, True)
    return dependency


def is_for_its_value(dependency: object) -> bool:
    return getattr(dependency, _FOR_VALUE, False) is True


def plainly(function: Callable[..., Any]) -> Callable[[F], F]:  # Any: as the dependency has them
    """Mark a coroutine that awaits nothing: this function, called with the same arguments, gives the same."""

    def mark(dependency: F) -> F:
        setattr(dependency, _PLAIN, function)
        return dependency

    return mark


def plain_of(dependency: object) -> Callable[..., Any] | None:  # Any: as above
    return getattr(dependency, _PLAIN, None)


def reads_scope(function: Callable[[Scope], Any]) -> Callable[[F], F]:  # Any: as above
    """Mark a dependency whose whole input is the request as ASGI has it: this function gives the same from that."""

    def mark(dependency: F) -> F:
        setattr(dependency, _READER, function)
        return dependency

    return mark


def reader_of(dependency: object) -> Callable[[Scope], Any] | None:  # Any: as above
    return getattr(dependency, _READER, None)


class InlineContext(Protocol):
    """What a generator without arguments does, in calls: less than half of its price."""

    def open(self) -> Any:  # Any: what the generator yields
        ...

    def end_unused(self) -> bool:
        """End what was never used, at once; False when there is something to wait for: then comes `__aexit__`."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...


def inline_context(
    context: Callable[[], InlineContext],
) -> Callable[[Callable[[], AsyncIterator[Any]]], Callable[[], AsyncIterator[Any]]]:  # Any: what it yields
    """Mark a generator that is nothing but `async with context() as it: yield it`."""

    def mark(generator: Callable[[], AsyncIterator[Any]]) -> Callable[[], AsyncIterator[Any]]:  # Any: as above
        setattr(generator, _CONTEXT, context)
        return inline(generator)

    return mark


def context_of(dependency: object) -> Callable[[], InlineContext] | None:
    return getattr(dependency, _CONTEXT, None)

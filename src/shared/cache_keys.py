"""Names of cache entries that say for whom they are, and that cannot be mistaken for one another."""

from uuid import UUID

KEY_VERSION = "v1"
"""Raise it when what is cached changes its shape: entries of the old code are then left alone."""

KeyPart = str | UUID | int | bool | None


def cache_key(*parts: KeyPart, principal: UUID | str | None) -> str:
    """A key for what `principal` may see; None is the public. A UUID and its text are the same part."""
    whose = "public" if principal is None else f"principal:{_length_prefixed(principal)}"
    return "|".join([KEY_VERSION, whose, *map(_length_prefixed, parts)])


def _length_prefixed(part: KeyPart) -> str:
    text = str(part)
    kind = "str" if isinstance(part, str | UUID) else type(part).__name__
    return f"{kind}{len(text)}:{text}"

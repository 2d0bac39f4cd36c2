"""What each route asks of its caller, read from its dependencies."""

from collections.abc import Iterator
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from src.auth import current_user
from src.auth.dependencies import current_session


@dataclass(frozen=True, slots=True)
class Needs:
    methods: tuple[str, ...]
    path: str
    permissions: tuple[str, ...]
    roles: tuple[str, ...]
    second_factor: bool
    session: bool
    """No API key will do."""
    logged_in: bool

    def __str__(self) -> str:
        named = [*self.permissions, *(f"role {role}" for role in self.roles)]
        if self.second_factor:
            named.append("second factor")
        elif self.session:
            named.append("session")
        return ", ".join(named) or ("log-in" if self.logged_in else "nothing")


def list_needs(app: FastAPI) -> Iterator[Needs]:
    """In the order in which the routes were added."""
    for found in iter_route_contexts(app.routes):
        if not isinstance(found.original_route, APIRoute) or not found.path:
            continue
        dependant = (found._route_context or found.original_route).dependant  # noqa: SLF001 - FastAPI offers no public way yet
        assert dependant is not None
        calls = [call for each in _all(dependant) if (call := each.call)]
        yield Needs(
            tuple(sorted(found.methods or ())),
            found.path,
            tuple(dict.fromkeys(name for call in calls for name in getattr(call, "required_permissions", ()))),
            tuple(dict.fromkeys(name for call in calls for name in getattr(call, "required_roles", ()))),
            any(getattr(call, "required_second_factor", False) for call in calls),
            any(call is current_session for call in calls),
            any(getattr(call, "__wrapped__", call) is current_user for call in calls),
        )


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for inner in dependant.dependencies:
        yield from _all(inner)

"""The grammar of permissions and the registry of those that the code asks for."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from uuid import UUID

PERMISSIONS = {
    "user:read": "List and read accounts",
    "user:create": "Create accounts",
    "user:update": "Change, activate and deactivate accounts",
    "user:delete": "Delete accounts",
    "role:read": "List roles and permissions",
    "role:create": "Create roles",
    "role:update": "Change roles",
    "role:delete": "Delete roles",
    "role:assign": "Give roles to accounts and take them away",
    "audit:read": "Read the audit log",
    "product:create": "Create products",
    "product:update": "Change products",
    "product:delete": "Archive products",
    "stock:adjust": "Adjust stock and read its movements, which name orders and their buyers",
    "order:read": "Read the orders of everybody",
    "order:update": "Move the orders of everybody along",
    "outbox:read": "See what waits to be delivered, and what was given up",
    "outbox:retry": "Have what was given up delivered again",
    "webhook:read": "Be told by webhooks, and see one's own and what they were told",
    "webhook:create": "Register webhooks",
    "webhook:update": "Change one's own webhooks, and have deliveries made again",
    "webhook:delete": "Delete one's own webhooks",
}
"""What a route of this service can require. A new domain adds its own here."""

DEMANDED_ROLES: set[str] = set()
"""Roles that code asks for by name: to have one is a right, whatever permissions it has."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*:[a-z][a-z0-9_-]*")


def check_name(permission: object) -> str:
    """`module:action`, in lower case.

    Raises:
        ValueError: for anything else, at import rather than with the first request.
    """
    if not isinstance(permission, str) or not _NAME.fullmatch(permission):
        raise ValueError(f"a permission is written module:action, not {permission!r}")
    return permission


def holds(held: Collection[str], required: str) -> bool:
    """`*`, `module` and `module:*` satisfy `module:action`; `module:action` satisfies itself only."""
    return any(permission in held for permission in satisfying(required))


def satisfying(required: str) -> tuple[str, ...]:
    """All that does."""
    module = required.partition(":")[0]
    return required, f"{module}:*", module, "*"


def missing(held: Collection[str], wanted: Iterable[str]) -> list[str]:
    """What somebody who holds `held` cannot give, wildcards included: `user:*` needs itself, `user` or `*`."""
    return sorted({permission for permission in wanted if not _covers(held, permission)})


def common(held: Collection[str], others: Collection[str]) -> frozenset[str]:
    """What satisfies no more than both do: of `order:*` and `order:read` the narrower one."""
    return frozenset(
        [narrow for narrow in others if _covers(held, narrow)] + [narrow for narrow in held if _covers(others, narrow)]
    )


def unknown(granted: Iterable[str]) -> list[str]:
    """What is neither in the registry nor a wildcard over something in it."""
    modules = {name.partition(":")[0] for name in PERMISSIONS}
    known = {"*", *PERMISSIONS, *modules, *(f"{module}:*" for module in modules)}
    return sorted(set(granted) - known)


def _covers(held: Collection[str], permission: str) -> bool:
    if permission == "*":
        return "*" in held
    return holds(held, permission if ":" in permission else f"{permission}:*")


@dataclass(frozen=True, slots=True)
class Grants:
    """What an account holds through its roles."""

    roles: frozenset[str]
    permissions: frozenset[str]
    holder: UUID | None = None
    """Whose they are, as long as its `auth_epoch` is this; None of whoever has them by another way, as a command does."""
    auth_epoch: int = 0
    withheld: "Grants | None" = None
    """What comes with a second factor, where one was not proven and a role requires it."""

    def allow(self, required: str) -> bool:
        return holds(self.permissions, required)

    def may_give_role(self, name: str) -> bool:
        """What code asks for by name is given by those who have it."""
        return name not in DEMANDED_ROLES or name in self.roles or "*" in self.permissions

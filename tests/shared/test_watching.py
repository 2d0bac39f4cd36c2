"""Which statements count as taking away, judged by their words; nothing that writes to a watched table gets past."""

from collections.abc import Iterator

import pytest

import src.auth.principals  # noqa: F401 - says which tables matter
from src.shared import watching
from src.shared.watching import Effect, effect_of, watch_tables

STATEMENTS = [
    (Effect.NONE, "SELECT users.id FROM users WHERE users.id = $1"),
    (Effect.NONE, "SELECT users.id FROM users FOR UPDATE"),
    (Effect.NONE, "SELECT users.id FROM users WHERE id = $1::UUID FOR NO KEY UPDATE OF users SKIP LOCKED"),
    (Effect.NONE, "SELECT auth_sessions.updated_at FROM auth_sessions"),
    (Effect.NONE, "WITH x AS (SELECT * FROM users) SELECT * FROM x"),
    (Effect.NONE, "UPDATE products SET name = $1"),
    (Effect.NONE, "UPDATE users_of_something SET name = $1"),
    (Effect.NONE, "DELETE FROM refresh_tokens WHERE session_id = $1"),
    (Effect.NONE, "INSERT INTO users (id, email) VALUES ($1, $2)"),
    (Effect.NONE, "INSERT INTO auth_sessions (id) VALUES (?) RETURNING id"),
    (Effect.NONE, "INSERT INTO roles (id) VALUES (?)"),
    (Effect.NONE, "INSERT INTO idempotency_records (a) VALUES ($1) ON CONFLICT DO NOTHING"),
    (Effect.NONE, "UPDATE auth_sessions SET last_used_at=? WHERE auth_sessions.id = ?"),
    (
        Effect.NONE,
        "UPDATE auth_sessions SET last_used_at=$1::TIMESTAMP WITH TIME ZONE WHERE auth_sessions.id = $2::UUID",
    ),
    (Effect.GIVES, "INSERT INTO user_roles (user_id, role_id) VALUES ($1, $2)"),
    (Effect.GIVES, "  insert into public.\"role_permissions\" SELECT id, 'a:b' FROM roles"),
    (Effect.TAKES, "UPDATE users SET username=$1 WHERE users.id = $2"),
    (Effect.TAKES, 'update public."users" set is_active = false'),
    (Effect.TAKES, "/* by hand */ DELETE FROM user_roles"),
    (Effect.TAKES, "-- by hand\nDELETE FROM user_roles"),
    (Effect.TAKES, "DELETE FROM roles WHERE id = $1"),
    (Effect.TAKES, "UPDATE auth_sessions SET revoked_at=? WHERE auth_sessions.id = ?"),
    (Effect.TAKES, "UPDATE auth_sessions SET last_used_at=?, revoked_at=? WHERE auth_sessions.id = ?"),
    (Effect.TAKES, "UPDATE auth_sessions SET last_used_at=revoked_at WHERE auth_sessions.id = ?"),
    (Effect.TAKES, "UPDATE auth_sessions SET last_used_at=? WHERE auth_sessions.id = ?; DELETE FROM users"),
    (
        Effect.TAKES,
        "WITH x AS (DELETE FROM users) UPDATE auth_sessions SET last_used_at=? WHERE auth_sessions.id = ?",
    ),
    (Effect.TAKES, "WITH gone AS (DELETE FROM user_roles WHERE user_id = $1 RETURNING 1) SELECT * FROM gone"),
    (Effect.TAKES, "INSERT INTO users (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET is_active = false"),
    (Effect.TAKES, "INSERT OR REPLACE INTO users (id) VALUES (?)"),
    (Effect.TAKES, "REPLACE INTO users (id) VALUES (?)"),
    (Effect.TAKES, "WITH x AS (DELETE FROM users RETURNING id) INSERT INTO audit SELECT id FROM x"),
    (Effect.TAKES, "MERGE INTO users USING x ON true WHEN MATCHED THEN DELETE"),
    (Effect.TAKES, "TRUNCATE orders, users CASCADE"),
    (Effect.TAKES, "COPY users FROM STDIN"),
    (Effect.TAKES, "EXPLAIN ANALYZE DELETE FROM users"),
    (Effect.TAKES, "ALTER TABLE users DROP COLUMN x"),
    (Effect.TAKES, "DROP TABLE user_roles"),
    (Effect.TAKES, "CALL tidy_up()"),
    (Effect.TAKES, "DO $$ BEGIN PERFORM tidy_up(); END $$"),
    (Effect.TAKES, "EXECUTE prepared_before"),
    (Effect.TAKES, "UPDATE users SET email = '" + "x" * 5000 + "'"),
]


@pytest.mark.parametrize(("effect", "statement"), STATEMENTS)
def test_a_statement_is_judged_by_its_words(effect: Effect, statement: str) -> None:
    assert effect_of(statement) is effect


@pytest.fixture
def nobody_said() -> Iterator[None]:
    """As in a script that imports nothing of `auth`."""
    tables = watching._tables
    watching._tables = None
    watching._judged.cache_clear()
    yield
    assert tables is not None
    watch_tables(*tables)


def test_until_somebody_says_which_tables_matter_each_does(nobody_said: None) -> None:
    assert effect_of("SELECT a FROM b FOR UPDATE") is Effect.NONE
    for statement in ("UPDATE b SET a = 1", "INSERT INTO b VALUES (1)", "DELETE FROM b"):
        assert effect_of(statement) is Effect.TAKES

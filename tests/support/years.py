"""A shop with years behind it, written straight to the tables: more orders than a test could place."""

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import make_url, text

from tests.support import postgres
from tests.support.tables import execute_each

BEGIN: Final = datetime(2025, 1, 1, tzinfo=UTC)
YEARS: Final = timedelta(days=730)
END: Final = BEGIN + YEARS
CURRENCIES: Final = ("EUR", "USD", "JPY")
_PRODUCTS: Final = 300
_CUSTOMERS: Final = 1000

# What the two databases say differently: an id of a number, and a moment of microseconds since BEGIN.
_SAID: Final = {
    "sqlite": {
        "ids": "printf('%08x0000{kind}0008000%012x', {number}, {number})",
        "moments": (
            f"strftime('%Y-%m-%d %H:%M:%S', {int(BEGIN.timestamp())} + ({{micros}}) / 1000000, 'unixepoch')"
            " || printf('.%06d', ({micros}) % 1000000)"
        ),
    },
    "postgresql": {
        "ids": "(lpad(to_hex({number}), 8, '0') || '0000{kind}0008000' || lpad(to_hex({number}), 12, '0'))::uuid",
        "moments": f"(timestamptz '{BEGIN.isoformat()}' + interval '1 microsecond' * ({{micros}}))",
    },
}
_SECOND: Final = 1_000_000
_HOUR: Final = 3600 * _SECOND
# Of twenty orders: (status, what happened after its placing and how many hours after it).
_FATES: Final = (
    *[("fulfilled", (("paid", 1), ("fulfilled", 30)))] * 13,
    *[("paid", (("paid", 2),))] * 2,
    ("placed", ()),
    ("expired", (("expired", 24),)),
    ("cancelled", (("cancelled", 3),)),
    ("cancelled", (("paid", 1), ("cancelled", 20))),
    ("returned", (("paid", 1), ("fulfilled", 25), ("returned", 300))),
)


def write_years(url: str, orders: int) -> None:
    """So many orders with their lines and their history, spread evenly over YEARS, in three currencies."""
    dialect = make_url(url).get_backend_name()
    said = _SAID[dialect]

    def an_id(kind: int, number: str) -> str:
        return said["ids"].format(kind=kind, number=number)

    def moment(micros: str) -> str:
        return said["moments"].format(micros=micros)

    def numbers(count: int) -> str:
        return f"WITH RECURSIVE counted(n) AS (SELECT CAST(0 AS BIGINT) UNION ALL SELECT n + 1 FROM counted WHERE n + 1 < {count})"

    # Primes, so that fates, currencies, goods and hours do not go round together.
    pace = int(YEARS / timedelta(microseconds=1)) // orders
    micros = f"(n * {pace} + (n * 7919 % 1000) * 977 % {max(pace, 1)})"
    fate, currency, lines = "(n * 7 % 20)", f"(n % {len(CURRENCIES)})", "(n % 11 % 3 + 1)"
    goods = f"((n * 13 + line * 101) % ({_PRODUCTS} / {len(CURRENCIES)}) * {len(CURRENCIES)} + {currency})"
    price = f"(100 + {goods} * 37 % 5000)"
    quantity = "((n + line) % 4 + 1)"
    each_line = "SELECT 0 AS line UNION ALL SELECT 1 UNION ALL SELECT 2"
    total = " + ".join(
        f"CASE WHEN {line} < {lines} THEN {price.replace('line', str(line))} * {quantity.replace('line', str(line))} ELSE 0 END"
        for line in range(3)
    )
    of_fate = " ".join(f"WHEN {number} THEN '{status}'" for number, (status, _) in enumerate(_FATES))
    versions = " ".join(f"WHEN {number} THEN {1 + len(steps)}" for number, (_, steps) in enumerate(_FATES))
    of_currency = " ".join(f"WHEN {number} THEN '{code}'" for number, code in enumerate(CURRENCIES))
    steps = " UNION ALL ".join(
        f"SELECT {number} AS fate, {version} AS version, '{status}' AS status, {hours * _HOUR} AS later"
        for number, (_, after) in enumerate(_FATES)
        for version, (status, hours) in enumerate((("placed", 0), *after), 1)
    )
    writes = [
        f"""
        INSERT INTO users (id, email, email_key, is_active, is_verified, auth_epoch, created_at, updated_at)
        {numbers(_CUSTOMERS)}
        SELECT {an_id(1, "n")}, 'buyer-' || n || '@example.com', 'buyer-' || n || '@example.com', {_true(dialect)},
            {_true(dialect)}, 0, {moment("0")}, {moment("0")}
        FROM counted
        """,
        f"""
        INSERT INTO products
            (id, sku, sku_key, name, description, price_minor, currency, status, on_hand, reserved, version,
             created_at, updated_at)
        {numbers(_PRODUCTS)}
        SELECT {an_id(2, "n")}, 'SKU-' || n, 'sku-' || n, 'Lamp ' || n, '', 100,
            CASE {currency} {of_currency} END, 'active', n, 0, 1, {moment("0")}, {moment("0")}
        FROM counted
        """,
        f"""
        INSERT INTO orders
            (id, number, customer_id, status, total_minor, currency, version, expires_at, created_at, updated_at)
        {numbers(orders)}
        SELECT {an_id(3, "n")}, 'N-' || n, {an_id(1, f"(n % {_CUSTOMERS})")}, CASE {fate} {of_fate} END, {total},
            CASE {currency} {of_currency} END, CASE {fate} {versions} END, {moment(f"{micros} + {24 * _HOUR}")},
            {moment(micros)}, {moment(micros)}
        FROM counted
        """,
        f"""
        INSERT INTO order_lines (order_id, product_id, sku, name, unit_price_minor, quantity)
        {numbers(orders)}
        SELECT {an_id(3, "n")}, {an_id(2, goods)}, 'SKU-' || {goods}, 'Lamp ' || {goods}, {price}, {quantity}
        FROM counted JOIN ({each_line}) AS each_line ON line < {lines}
        """,
        f"""
        INSERT INTO order_events (order_id, version, status, actor_id, created_at)
        {numbers(orders)}
        SELECT {an_id(3, "n")}, version, status, NULL, {moment(f"{micros} + later")}
        FROM counted JOIN ({steps}) AS steps ON fate = {fate}
        """,
    ]
    execute_each(url, [text(statement.replace(":", r"\:")) for statement in writes])
    # What a database does by itself sooner or later; those of tests have it switched off.
    if dialect == "sqlite":
        execute_each(url, [text("ANALYZE")])
    else:
        postgres.execute(url, "VACUUM ANALYZE")


def _true(dialect: str) -> str:
    return "1" if dialect == "sqlite" else "true"

"""Products: making, showing, finding and changing them."""

from datetime import datetime
from functools import partial
from uuid import UUID, uuid4

import httpx2
import pytest

from src.core.products.currencies import ISO_4217
from src.shared.errors import ErrorCode
from tests.core.conftest import PRODUCTS, Buyer, MakeProduct, Product
from tests.support.answers import at_once, data_of, refused, refused_fields

FIELDS = {
    *("id", "sku", "name", "description", "price_minor", "currency"),
    *("stock", "status", "version", "created_at", "updated_at"),
}


def letter(**differently: object) -> dict[str, object]:
    plain = {"sku": f"SKU-{uuid4().hex}", "name": "Lamp", "price_minor": 1, "currency": "EUR", "stock": 1}
    return plain | differently


def found(client: httpx2.Client, **filters: str | int | bool) -> list[Product]:
    page = data_of(client.get(PRODUCTS, params={"size": 100, **filters}))
    assert page.keys() == {"items", "total", "page", "size", "pages"}
    items: list[Product] = page["items"]
    return items


def ids(products: list[Product]) -> list[str]:
    return [product["id"] for product in products]


def test_a_product_is_made_as_it_was_described(client: httpx2.Client, admin: httpx2.Client) -> None:
    sku = f"LAMP/{uuid4().hex}.2"

    product = data_of(admin.post(PRODUCTS, json=letter(sku=sku, name="  Storm lamp ", price_minor=3490, stock=7)), 201)

    assert product.keys() == FIELDS
    assert UUID(product["id"]).version == 7
    assert datetime.fromisoformat(product["created_at"]).utcoffset() is not None
    told = {name: product[name] for name in FIELDS - {"id", "created_at", "updated_at"}}
    assert told == {
        "sku": sku,
        "name": "Storm lamp",
        "description": "",
        "price_minor": 3490,
        "currency": "EUR",
        "stock": 7,
        "status": "active",
        "version": 1,
    }
    assert data_of(client.get(f"{PRODUCTS}/{product['id']}")) == product


NO_PRODUCT: dict[str, tuple[object, ...]] = {
    "sku": ("", "x" * 65, "two words", "a\x00b", "\ufdfa" * 64, None, 7),
    "name": ("", "   ", "x" * 256, "two\nlines", "a\x00b", None),
    "description": ("x" * 10_001, "a\x00b", 7),
    "price_minor": (-1, 1.5, 1.0, "100", True, 100_000_000_001, 2**63, 10**400, None),
    "currency": ("", "eur", "EURO", "XXX", "ZZZ", "€", "ＥＵＲ", None, 978),  # noqa: RUF001 - full-width on purpose
    "stock": (-1, 0.5, "1", True, 1_000_000_001, 2**31, 2**63, None),
    "status": ("sold", "ACTIVE", "", None),
    "price": (1,),
    "id": (str(UUID(int=0)),),
}


def test_what_is_no_product_is_refused(admin: httpx2.Client) -> None:
    for field, values in NO_PRODUCT.items():
        for value in values:
            assert refused_fields(admin.post(PRODUCTS, json=letter(**{field: value}))) == {field}


def test_every_currency_in_use_is_known(admin: httpx2.Client) -> None:
    assert {"EUR", "USD", "GBP", "JPY", "CHF", "INR", "CNY", "BRL", "KWD", "ZAR"} <= ISO_4217.keys()
    assert not {"XXX", "XTS", "XAU", "DEM", "HRK"} & ISO_4217.keys()


def test_a_sku_is_unique_without_regard_to_case(admin: httpx2.Client, make_product: MakeProduct) -> None:
    mark = uuid4().hex
    make_product(sku=f"Straße-{mark}")

    for spelling in (f"Straße-{mark}", f"STRASSE-{mark.upper()}", f"ｓtrasse-{mark}"):  # noqa: RUF001 - full-width on purpose
        refused(admin.post(PRODUCTS, json=letter(sku=spelling)), ErrorCode.SKU_TAKEN)


def test_of_many_who_make_one_sku_at_once_one_does(admin: httpx2.Client) -> None:
    wanted = letter()

    answers = at_once([partial(admin.post, PRODUCTS, json=wanted)] * 6)

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5


def test_writing_needs_its_permissions_and_reading_needs_nobody(
    client: httpx2.Client, buyer: Buyer, make_product: MakeProduct
) -> None:
    product = f"{PRODUCTS}/{make_product()['id']}"

    def attempt(somebody: httpx2.Client) -> dict[str, httpx2.Response]:
        adjustment, key = {"delta": 1, "reason": "found"}, {"Idempotency-Key": uuid4().hex}
        return {
            "product:create": somebody.post(PRODUCTS, json=letter()),
            "product:update": somebody.patch(product, json={"name": "Mine"}),
            "product:delete": somebody.delete(product),
            "stock:adjust": somebody.post(f"{product}/stock", json=adjustment, headers=key),
            "stock:adjust read": somebody.get(f"{product}/stock/movements"),
        }

    for answer in attempt(client).values():
        refused(answer, ErrorCode.NOT_AUTHENTICATED)
    for needs, answer in attempt(buyer.client).items():
        assert refused(answer, ErrorCode.PERMISSION_DENIED)["required"] == [needs.partition(" ")[0]]
    data_of(client.get(product))
    data_of(client.get(PRODUCTS))


def test_the_list_is_filtered(client: httpx2.Client, make_product: MakeProduct) -> None:
    mark = uuid4().hex
    cheap = make_product(name=f"Rope {mark}", price_minor=100, stock=0)["id"]
    dear = make_product(name=f"Lamp {mark}", price_minor=900, stock=1)["id"]
    foreign = make_product(name="Cask", sku=f"CASK-{mark}", price_minor=500, currency="USD")["id"]

    def search(**filters: str | int | bool) -> list[str]:
        return ids(found(client, q=mark, **filters))

    assert search() == [cheap, dear, foreign]
    assert search(currency="USD") == [foreign]
    assert search(min_price_minor=101, max_price_minor=899) == [foreign]
    assert search(min_price_minor=100, max_price_minor=100) == [cheap]
    assert search(in_stock=True) == [dear, foreign]
    assert search(in_stock=False) == [cheap]
    assert search(status="archived") == []
    assert ids(found(client, q=f"LAMP {mark}")) == [dear]
    assert ids(found(client, q=f"cask-{mark.upper()}")) == [foreign]


@pytest.mark.parametrize("wildcard", ["%", "_", "\\", "/", "%%", "[a-z]", "*", "'"])
def test_a_search_has_no_wildcards(client: httpx2.Client, make_product: MakeProduct, wildcard: str) -> None:
    mark = uuid4().hex
    make_product(name=f"{mark} plain x")
    special = make_product(name=f"{mark} {wildcard} x")["id"]

    assert ids(found(client, q=f"{mark} {wildcard} x")) == [special]
    assert ids(found(client, q=f"{mark}{wildcard}x")) == []
    sku = make_product(sku=f"{mark}-x")
    assert sku["id"] not in ids(found(client, q=f"{mark}{wildcard}x"))


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("created_at", [0, 1, 2]),
        ("-created_at", [2, 1, 0]),
        ("name", [1, 2, 0]),
        ("-name", [0, 2, 1]),
        ("price_minor", [2, 0, 1]),
        ("-price_minor", [1, 0, 2]),
        ("sku", [0, 2, 1]),
        ("-sku", [1, 2, 0]),
    ],
)
def test_the_list_is_sorted(client: httpx2.Client, make_product: MakeProduct, sort: str, order: list[int]) -> None:
    mark = uuid4().hex
    made = [
        make_product(name=f"c {mark}", price_minor=20, sku=f"a-{mark}")["id"],
        make_product(name=f"a {mark}", price_minor=30, sku=f"c-{mark}")["id"],
        make_product(name=f"b {mark}", price_minor=10, sku=f"B-{mark}")["id"],
    ]

    assert ids(found(client, q=mark, sort=sort)) == [made[number] for number in order]


def test_pages_neither_overlap_nor_miss(client: httpx2.Client, make_product: MakeProduct) -> None:
    mark = uuid4().hex
    made = [make_product(name=f"{mark} same name", price_minor=5)["id"] for _ in range(5)]

    for sort in ("created_at", "name", "price_minor"):
        pages = [
            data_of(client.get(PRODUCTS, params={"q": mark, "sort": sort, "size": 2, "page": page}))
            for page in (1, 2, 3, 4)
        ]
        assert [one["id"] for page in pages for one in page["items"]] == made
        assert [(page["total"], page["pages"], page["page"], page["size"]) for page in pages] == [
            (5, 3, number, 2) for number in (1, 2, 3, 4)
        ]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *(("size", value) for value in ("0", "101", "-1", "x", str(2**63))),
        *(("page", value) for value in ("0", "-1", "1.5", "x", str(2**63))),
        *(("sort", value) for value in ("reserved", "name,id", "NAME", "")),
        *(("min_price_minor", value) for value in ("-1", "x", str(2**63))),
        *(("in_stock", "perhaps"), ("currency", "EURO"), ("status", "sold"), ("q", "a\x00b"), ("skus", "x")),
    ],
)
def test_what_is_no_filter_is_refused(client: httpx2.Client, parameter: str, value: str) -> None:
    assert refused_fields(client.get(PRODUCTS, params={parameter: value})) == {f"query.{parameter}"}


BY_CURSOR = f"{PRODUCTS}/by-cursor"


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "name", "-price_minor", "sku"])
def test_pages_by_cursor_have_each_product_of_the_filter_once(
    client: httpx2.Client, make_product: MakeProduct, sort: str
) -> None:
    mark = uuid4().hex
    for number in range(7):
        make_product(name=f"{mark} {number % 3}", price_minor=number % 2, currency="USD" if number == 3 else "EUR")
    asked = {"q": mark, "currency": "EUR", "sort": sort}
    expected = ids(found(client, **asked))

    seen, cursor = list[str](), ""
    while cursor is not None:
        page = data_of(client.get(BY_CURSOR, params={**asked, "size": 2, "cursor": cursor}))
        assert all(product.keys() == FIELDS for product in page["items"])
        assert page["total"] == 6
        seen += ids(page["items"])
        cursor = page["next_page"]

    assert seen == expected
    assert len(set(seen)) == 6


def test_what_comes_and_goes_meanwhile_moves_no_product_to_another_page(
    client: httpx2.Client, admin: httpx2.Client, make_product: MakeProduct
) -> None:
    mark = uuid4().hex
    made = [make_product(name=f"{mark} {name}")["id"] for name in "bdfhj"]
    asked: dict[str, str | int] = {"q": mark, "sort": "name", "size": 2}
    first = data_of(client.get(BY_CURSOR, params=asked))

    make_product(name=f"{mark} a")
    data_of(admin.delete(f"{PRODUCTS}/{made[1]}"))
    data_of(admin.delete(f"{PRODUCTS}/{made[3]}"))
    later = make_product(name=f"{mark} i")["id"]
    rest = [data_of(client.get(BY_CURSOR, params={**asked, "cursor": first["next_page"]}))]
    while rest[-1]["next_page"]:
        rest.append(data_of(client.get(BY_CURSOR, params={**asked, "cursor": rest[-1]["next_page"]})))

    assert ids(first["items"]) == made[:2]
    assert [one["id"] for page in rest for one in page["items"]] == [made[2], later, made[4]]


def test_a_cursor_leads_back_too(client: httpx2.Client, make_product: MakeProduct) -> None:
    mark = uuid4().hex
    made = [make_product(name=mark)["id"] for _ in range(4)]
    asked: dict[str, str | int] = {"q": mark, "size": 2}
    first = data_of(client.get(BY_CURSOR, params=asked))
    second = data_of(client.get(BY_CURSOR, params={**asked, "cursor": first["next_page"]}))

    back = data_of(client.get(BY_CURSOR, params={**asked, "cursor": second["previous_page"]}))

    assert ids(second["items"]) == made[2:]
    assert ids(back["items"]) == made[:2]
    assert (first["previous_page"], second["next_page"]) == (None, None)


def test_the_cursor_of_another_list_is_refused(client: httpx2.Client, make_product: MakeProduct) -> None:
    mark = uuid4().hex
    for _ in range(3):
        make_product(name=mark, stock=1)
    asked: dict[str, str | int] = {"q": mark, "sort": "price_minor", "size": 1}
    cursor = data_of(client.get(BY_CURSOR, params=asked))["next_page"]

    for differently in (
        {"sort": "-price_minor"},
        {"sort": "name"},
        {"q": mark[:-1]},
        {"currency": "EUR"},
        {"in_stock": "true"},
        {"status": "archived"},
        {"cursor": f"{cursor}x"},
        {"cursor": cursor[:-1]},
        {"cursor": "nonsense"},
    ):
        answer = client.get(BY_CURSOR, params={**asked, "cursor": cursor, **differently})
        assert refused_fields(answer) == {"query.cursor"}
    # Only how much of it is shown at a time may change.
    assert len(data_of(client.get(BY_CURSOR, params={**asked, "cursor": cursor, "size": 100}))["items"]) == 2


def test_pages_by_cursor_show_no_drafts_to_the_public(
    client: httpx2.Client, admin: httpx2.Client, make_product: MakeProduct
) -> None:
    mark = uuid4().hex
    drafts = [make_product(name=mark, status="draft")["id"] for _ in range(2)]
    asked: dict[str, str | int] = {"q": mark, "status": "draft", "size": 1}

    page = data_of(admin.get(BY_CURSOR, params=asked))
    told = [client.get(BY_CURSOR, params=asked | more) for more in ({}, {"cursor": page["next_page"]})]

    assert ids(page["items"]) == drafts[:1]
    for answer in told:
        assert data_of(answer)["items"] == []


def test_a_draft_does_not_exist_for_the_public(
    client: httpx2.Client, admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct
) -> None:
    mark = uuid4().hex
    draft = make_product(name=mark, status="draft")["id"]

    for public in (client, buyer.client):
        refused(public.get(f"{PRODUCTS}/{draft}"), ErrorCode.PRODUCT_NOT_FOUND)
        assert found(public, q=mark) == []
        assert found(public, q=mark, status="draft") == []
    refused(buyer.place((draft, 1)), ErrorCode.PRODUCT_NOT_FOUND)
    assert ids(found(admin, q=mark, status="draft")) == [draft]
    assert found(admin, q=mark) == []
    assert data_of(admin.get(f"{PRODUCTS}/{draft}"))["status"] == "draft"

    data_of(admin.patch(f"{PRODUCTS}/{draft}", json={"status": "active"}))
    assert ids(found(client, q=mark)) == [draft]


def test_an_archived_product_leaves_the_shop(
    client: httpx2.Client, admin: httpx2.Client, buyer: Buyer, make_product: MakeProduct
) -> None:
    mark = uuid4().hex
    product = make_product(name=mark)["id"]

    assert data_of(admin.delete(f"{PRODUCTS}/{product}")) is None

    assert found(client, q=mark) == []
    assert data_of(client.get(f"{PRODUCTS}/{product}"))["status"] == "archived"
    refused(buyer.place((product, 1)), ErrorCode.PRODUCT_NOT_FOR_SALE)


def test_an_edit_changes_what_it_names(admin: httpx2.Client, make_product: MakeProduct) -> None:
    product = make_product(description="Burns eight hours.")

    edited = data_of(admin.patch(f"{PRODUCTS}/{product['id']}", json={"price_minor": 3990, "description": ""}))

    assert edited["updated_at"] > product["updated_at"]
    assert edited == product | {
        "price_minor": 3990,
        "description": "",
        "version": 2,
        "updated_at": edited["updated_at"],
    }
    assert data_of(admin.get(f"{PRODUCTS}/{product['id']}")) == edited


@pytest.mark.parametrize(
    ("field", "value"), [("price_minor", -1), ("currency", "XXX"), ("stock", 5), ("sku", "other"), ("version", 9)]
)
def test_what_is_no_edit_is_refused(admin: httpx2.Client, make_product: MakeProduct, field: str, value: object) -> None:
    product = f"{PRODUCTS}/{make_product()['id']}"

    assert refused_fields(admin.patch(product, json={field: value})) == {field}


@pytest.mark.parametrize("etag", ['"{}"', "{}", 'W/"{}"', "*"])
def test_an_edit_of_the_version_that_was_read_counts(
    admin: httpx2.Client, make_product: MakeProduct, etag: str
) -> None:
    product = f"{PRODUCTS}/{make_product()['id']}"
    data_of(admin.patch(product, json={"name": "Second"}))

    edited = data_of(admin.patch(product, json={"name": "Third"}, headers={"If-Match": etag.format(2)}))

    assert (edited["version"], edited["name"]) == (3, "Third")


def test_an_edit_of_an_older_version_is_refused(admin: httpx2.Client, make_product: MakeProduct) -> None:
    product = f"{PRODUCTS}/{make_product()['id']}"
    data_of(admin.patch(product, json={"name": "Second"}))

    for version in ("1", "3", "0", "999999999"):
        answer = admin.patch(product, json={"name": "Lost"}, headers={"If-Match": f'"{version}"'})
        assert refused(answer, ErrorCode.VERSION_MISMATCH) == {"version": 2}

    assert data_of(admin.get(product))["name"] == "Second"


def test_what_is_no_version_is_refused(admin: httpx2.Client, make_product: MakeProduct) -> None:
    product = f"{PRODUCTS}/{make_product()['id']}"

    for etag in ("", '""', "abc", '"abc"', "-1", "1.5", "9999999999", "²", '"1", "2"', '"*"', "W/*"):
        answer = admin.patch(product, json={"name": "x"}, headers=[(b"If-Match", etag.encode("latin-1"))])
        assert {field.lower() for field in refused_fields(answer)} == {"header.if-match"}


def test_of_many_edits_of_one_version_one_counts(admin: httpx2.Client, make_product: MakeProduct) -> None:
    product = f"{PRODUCTS}/{make_product()['id']}"
    names = [f"name {number}" for number in range(8)]

    def edit(name: str) -> httpx2.Response:
        return admin.patch(product, json={"name": name}, headers={"If-Match": '"1"'})

    answers = at_once([partial(edit, name) for name in names])

    won = [name for name, answer in zip(names, answers, strict=True) if answer.status_code == 200]
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
    current = data_of(admin.get(product))
    assert (current["version"], [current["name"]]) == (2, won)


@pytest.mark.parametrize("etag", ['"{}"', "{}", 'W/"{}"', "*"])
def test_the_version_that_was_read_is_archived(admin: httpx2.Client, make_product: MakeProduct, etag: str) -> None:
    product = f"{PRODUCTS}/{make_product()['id']}"
    data_of(admin.patch(product, json={"name": "Second"}))

    assert data_of(admin.delete(product, headers={"If-Match": etag.format(2)})) is None

    archived = data_of(admin.get(product))
    assert (archived["status"], archived["version"]) == ("archived", 3)


def test_another_version_than_the_one_that_was_read_is_not_archived(
    admin: httpx2.Client, make_product: MakeProduct
) -> None:
    product = f"{PRODUCTS}/{make_product()['id']}"
    data_of(admin.patch(product, json={"name": "Second"}))

    for version in ("1", "3", "0"):
        answer = admin.delete(product, headers={"If-Match": f'"{version}"'})
        assert refused(answer, ErrorCode.VERSION_MISMATCH) == {"version": 2}
    for etag in ("", "abc", "-1"):
        assert {field.lower() for field in refused_fields(admin.delete(product, headers={"If-Match": etag}))} == {
            "header.if-match"
        }
    refused(admin.delete(f"{PRODUCTS}/{uuid4()}", headers={"If-Match": '"1"'}), ErrorCode.PRODUCT_NOT_FOUND)

    untouched = data_of(admin.get(product))
    assert (untouched["status"], untouched["version"]) == ("active", 2)


def test_of_an_edit_and_an_archiving_of_one_version_one_counts(admin: httpx2.Client, make_product: MakeProduct) -> None:
    for _ in range(10):
        product, read = f"{PRODUCTS}/{make_product()['id']}", {"If-Match": '"1"'}

        answers = at_once(
            [
                partial(admin.patch, product, json={"name": "Edited"}, headers=read),
                partial(admin.delete, product, headers=read),
            ]
        )

        assert sorted(answer.status_code for answer in answers) == [200, 412]
        current, edited = data_of(admin.get(product)), answers[0].status_code == 200
        assert (current["name"] == "Edited", current["status"] == "active") == (edited, edited)


def test_no_product_is_not_found(client: httpx2.Client, admin: httpx2.Client) -> None:
    nothing = f"{PRODUCTS}/{uuid4()}"
    key = {"Idempotency-Key": uuid4().hex}

    for answer in (
        client.get(nothing),
        admin.patch(nothing, json={"name": "x"}),
        admin.delete(nothing),
        admin.post(f"{nothing}/stock", json={"delta": 1, "reason": "x"}, headers=key),
        admin.get(f"{nothing}/stock/movements"),
    ):
        refused(answer, ErrorCode.PRODUCT_NOT_FOUND)
    assert refused_fields(client.get(f"{PRODUCTS}/{uuid4().hex}")) == {"path.product_id"}

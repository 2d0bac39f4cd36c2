"""Patterns, Error handling: the code decides the status, the facts travel in `data`."""

import httpx2

from src.shared.errors import ERROR_CODE_TO_HTTP, ErrorCode


def test_a_business_exception_becomes_an_envelope_with_its_code_and_status(client: httpx2.Client) -> None:
    answer = client.post("/stock/3/refusal")

    assert answer.status_code == 409
    assert answer.json() == {"code": 50101, "msg": "Only 3 items available", "data": {"available": 3}}


def test_who_asks_for_problem_details_gets_the_same_facts(client: httpx2.Client) -> None:
    answer = client.post("/stock/3/refusal", headers={"Accept": "application/problem+json"})

    problem = answer.json()
    assert (answer.status_code, answer.headers["Content-Type"]) == (409, "application/problem+json")
    assert (problem["status"], problem["code"], problem["data"]) == (409, 50101, {"available": 3})


def test_the_code_is_a_number_and_has_its_status() -> None:
    assert int(ErrorCode.PRODUCT_OUT_OF_STOCK) == 50101
    assert ERROR_CODE_TO_HTTP[ErrorCode.PRODUCT_OUT_OF_STOCK] == 409


def test_the_docs_of_the_route_name_the_code_that_it_raises(client: httpx2.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/stock/{stock}/refusal"]["post"]

    assert "50101" in operation["responses"]["409"]["x-error-codes"]

"""Patterns, Response format: every answer is `{code, msg, data}`."""

import httpx2


def test_raw_data_is_wrapped(client: httpx2.Client) -> None:
    answer = client.get("/things")

    assert answer.status_code == 200
    assert answer.json() == {"code": 200, "msg": "success", "data": [{"id": 1}]}


def test_the_explicit_wrapper_says_message_and_status(client: httpx2.Client) -> None:
    answer = client.post("/things", json={"name": "lamp"})

    assert answer.status_code == 201
    assert answer.json() == {"code": 201, "msg": "Created", "data": {"name": "lamp"}}


def test_data_that_looks_like_an_envelope_is_data(client: httpx2.Client) -> None:
    lookalike = {"code": "7", "msg": "mine", "data": "too"}

    assert client.post("/things", json=lookalike).json() == {"code": 201, "msg": "Created", "data": lookalike}


def test_all_keys_come_in_their_order(client: httpx2.Client) -> None:
    assert client.get("/things").text == '{"code":200,"msg":"success","data":[{"id":1}]}'

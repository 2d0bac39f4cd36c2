"""Patterns, Dependency injection: a route gets the settings that the process was started with."""

import httpx2


def test_the_settings_of_the_environment_reach_the_route(client: httpx2.Client, server_env: dict[str, str]) -> None:
    answer = client.get("/settings/max-retries")

    assert answer.json() == {"code": 200, "msg": "success", "data": int(server_env["APP__MAX_RETRIES"])}


def test_settings_are_no_parameter_of_the_route(client: httpx2.Client) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/settings/max-retries"]["get"]

    assert "parameters" not in operation
    assert "requestBody" not in operation

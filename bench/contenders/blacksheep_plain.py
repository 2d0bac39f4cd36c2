"""BlackSheep with nothing but routes: static JSON without any pattern, at its quickest."""

from dataclasses import dataclass

import orjson
from blacksheep import Application, Response, Router, json
from blacksheep.settings.json import json_settings

from bench.contenders import given as names

given = names.read()
json_settings.use(loads=orjson.loads, dumps=lambda value: orjson.dumps(value).decode())
router = Router()
app = Application(router=router)


@dataclass(slots=True)
class Greeting:
    message: str


@dataclass(slots=True)
class Envelope:
    code: int
    msg: str
    data: Greeting


async def greet() -> Response:
    return json(Envelope(200, "success", Greeting(names.GREETING)))


async def filler_with_parameter(thing_id: str) -> Response:
    return json(Envelope(200, "success", Greeting(thing_id)))


for prefix, paths in names.filler_groups(given.filler_routes):
    for path in paths:
        router.add_get(prefix + path, filler_with_parameter if "{" in path else greet)
router.add_get("/bench/static", greet)

"""The service with a team's routers in it."""

from src.http.app import create_app
from tests.http.apps.letters import add_letters
from tests.http.apps.refusals import add_refusals
from tests.http.apps.streams import add_streams

app = create_app()
add_letters(app)
add_refusals(app)
add_streams(app)

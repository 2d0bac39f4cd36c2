"""An administrator who cannot log in is none: whoever can must not leave."""

from uuid import uuid4

import pytest

from src.shared.errors import ErrorCode
from tests.conftest import PASSWORD
from tests.support.answers import data_of, refused
from tests.support.mail import running_mail_server
from tests.support.postgres import Kind
from tests.support.service import own_place


@pytest.mark.parametrize("verified", [True, False])
def test_an_invited_administrator_does_not_stand_in_for_one(database_kind: Kind, verified: bool) -> None:  # noqa: FBT001 - a table
    with running_mail_server() as box, own_place(database_kind, MAIL__URL=box.url) as place, place.service() as service:
        admin, email = service.log_in()["access_token"], f"{uuid4().hex}@example.com"
        letter = {"email": email, "roles": ["admin"], "is_verified": verified}
        data_of(service.post("users", letter, token=admin), 201)
        leave = {"current_password": PASSWORD}

        refused(service.post("profile/delete", leave, token=admin), ErrorCode.LAST_ADMIN)
        refused(service.post("profile/deactivate", leave, token=admin), ErrorCode.LAST_ADMIN)

        code = box.wait_for(email).code
        data_of(service.post("auth/password/reset", {"token": code, "new_password": "violet-harbour-engine-47"}))
        data_of(service.post("profile/delete", leave, token=admin))

"""An authenticator app, and people who have one."""

from dataclasses import dataclass, field
from time import time

import pyotp
from sqlalchemy import update

from src.auth.models import TotpFactor
from tests.support.tables import execute

_STEP_SECONDS = 30


@dataclass
class Phone:
    secret: str
    database_url: str
    _last_step: int = field(default=0)

    def code(self) -> str:
        """One that is taken now. After two within a step the service forgets which it took last, as if a minute had passed."""
        step = max(self._last_step + 1, self.now())
        if step > self.now() + 1:
            self.rest()
            step = self.now()
        self._last_step = step
        return self.code_of(step)

    def now(self) -> int:
        return int(time()) // _STEP_SECONDS

    def code_of(self, step: int) -> str:
        return pyotp.TOTP(self.secret).generate_otp(step)

    def wrong_code(self) -> str:
        """None of those that the service could take, now or soon."""
        good = {self.code_of(self.now() + offset) for offset in range(-3, 4)}
        return next(code for code in (f"{number:06}" for number in range(len(good) + 1)) if code not in good)

    def rest(self) -> None:
        """Everybody's: whose it is does not matter, since no test looks at two."""
        self._last_step = 0
        execute(self.database_url, update(TotpFactor).values(last_step=0))

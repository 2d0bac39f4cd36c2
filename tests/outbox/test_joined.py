"""What several domains do about one kind of event."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from src.outbox import services as outbox
from src.outbox.services import Event, Handler


async def inside(_session: AsyncSession, _event: Event) -> None: ...


async def outside(_event: Event) -> None: ...


@pytest.mark.parametrize(
    "handlers", [(outside, outside), (outside, outbox.once(inside)), (outbox.once(inside), outside)]
)
def test_effects_outside_are_not_carried_out_together(handlers: tuple[Handler, Handler]) -> None:
    first, second = handlers

    with pytest.raises(ValueError, match=r"order\.paid: several handlers"):
        outbox.joined({"order.paid": first}, {"order.paid": second})


def test_each_kind_keeps_its_handler() -> None:
    assert outbox.joined({"mail": outside}, {"order.paid": outside}) == {"mail": outside, "order.paid": outside}

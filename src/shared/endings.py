"""What a session does last: what is said before COMMIT, in the same transaction, and what waits until it is done."""

from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncSession

BeforeCommit = Callable[[AsyncSession], Awaitable[None]]
AfterCommit = Callable[[], None]


class EndingSession(AsyncSession):
    """An AsyncSession whose COMMIT has company."""

    # Of the class until somebody has something to say: most sessions end without.
    last_words: tuple[BeforeCommit, ...] = ()
    afterwards: tuple[AfterCommit, ...] = ()

    async def commit(self) -> None:
        if self.last_words:
            await self.say_last_words()
        await super().commit()
        if self.afterwards:
            self.go_on()

    async def rollback(self) -> None:
        self.fall_silent()
        await super().rollback()

    async def say_last_words(self) -> None:
        while self.last_words:
            words, self.last_words = self.last_words, ()
            for say in words:
                await say(self)

    def go_on(self) -> None:
        afterwards, self.afterwards = self.afterwards, ()
        for act in afterwards:
            act()

    def fall_silent(self) -> None:
        self.last_words, self.afterwards = (), ()


async def before_commit(session: AsyncSession, say: BeforeCommit) -> None:
    """In the session's transaction, as late as can be: locks taken there are held for a moment. At once, where the
    session is somebody else's and would not ask."""
    if isinstance(session, EndingSession):
        session.last_words = (*session.last_words, say)
    else:
        await say(session)


def after_commit(session: AsyncSession, act: AfterCommit) -> None:
    """Never after a rollback. At once, where the session is somebody else's: it must do no harm too early."""
    if isinstance(session, EndingSession):
        session.afterwards = (*session.afterwards, act)
    else:
        act()

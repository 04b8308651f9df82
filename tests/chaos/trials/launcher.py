"""`python -m tests.chaos.trials.launcher …`: the campaign's launcher, and a header says who calls.

Authentication will stand in `api.state.caller`, and is a later version's. What stands there here believes the caller;
the door, its routes and all that is behind them are the service's own.
"""

import os
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Depends
from tests.chaos import settable_clock, trap
from tests.chaos.launcher import FOLDER, NAME
from tests.chaos.trials.crowd import ACCOUNTS, HEADER

from comfy_api_service.api import state
from comfy_api_service.cli.main import main
from comfy_api_service.domain.account import LOCAL, Account

_calling: Final[ContextVar[Account]] = ContextVar("calling", default=LOCAL)


async def named() -> Account:
    return _calling.get()


def install() -> None:
    """Before any route is imported: routes take `caller` as it is then."""
    state.caller = named
    state.Caller = Annotated[Account, Depends(named)]  # type: ignore[assignment]
    from comfy_api_service.api.shortcut import Shortcut  # noqa: PLC0415 - not before

    answer = Shortcut.__call__

    async def called(self: Any, scope: Any, receive: Any, send: Any) -> None:
        name = dict(scope["headers"]).get(HEADER.lower().encode(), b"").decode()
        _calling.set(ACCOUNTS.get(name, LOCAL))
        await answer(self, scope, receive, send)

    Shortcut.__call__ = called  # type: ignore[method-assign]


if __name__ == "__main__":
    folder = Path(os.environ[FOLDER])
    trap.install(folder, os.environ[NAME])
    settable_clock.install(folder / os.environ[NAME])
    install()
    main()

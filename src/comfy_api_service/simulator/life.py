"""What requests and the running prompt both see and change."""

import asyncio


class Life:
    """The state of the running prompt; one for each life of the server."""

    def __init__(self, gate: asyncio.Event) -> None:
        self._gate = gate
        self.client_id: str | None = None
        self.current_node: str | None = None
        self.interrupt = False

    async def pause(self) -> None:
        """Wait while the whole server hangs."""
        await self._gate.wait()

"""A prompt of the worker's own, small and without a model, that shows whether a suspected backend works again.

So no caller's job has to be risked for it, and a backend that recovered gets work at once.
"""

import secrets
from typing import Any, Final

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.views import Outcome
from comfy_api_service.domain.clock import Clock
from comfy_api_service.domain.ids import new_client_id, new_prompt_id
from comfy_api_service.domain.inventory import Inventory

NODES: Final = ("EmptyImage", "PreviewImage")
AGAIN_SECONDS: Final = 60.0
"""After which one that did not come back is given up, and the next one sent."""


class Canary:
    def __init__(self, client: ComfyClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._client_id = new_client_id()
        self._prompt_id: str | None = None
        self._sent_at = 0.0

    @staticmethod
    def suits(inventory: Inventory | None) -> bool:
        """Whether a backend with this inventory could run it."""
        return inventory is not None and all(name in inventory.classes for name in NODES)

    async def came_back(self) -> bool:
        """Send it if none is out; whether the one that is has run to its end. Raises as the client does."""
        now = self._clock.monotonic()
        if self._prompt_id is None:
            prompt_id = new_prompt_id()
            await self._client.submit(prompt_id=prompt_id, client_id=self._client_id, graph=_graph())
            self._prompt_id, self._sent_at = prompt_id, now
            return False
        entry = await self._client.history(self._prompt_id)
        if entry is not None:
            self._prompt_id = None
            return entry.outcome is Outcome.SUCCESS
        if now - self._sent_at >= AGAIN_SECONDS:
            await self.call_back()
        return False

    async def call_back(self) -> None:
        """Take it off the backend, if it is there."""
        prompt_id, self._prompt_id = self._prompt_id, None
        if prompt_id is not None:
            await self._client.delete_pending([prompt_id])
            await self._client.interrupt(prompt_id)


def _graph() -> dict[str, Any]:
    """A picture of 8 × 8; of another colour each time, so that no cache answers."""
    colour = secrets.randbelow(1 << 24)
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": colour},
        },
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }

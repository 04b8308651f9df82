"""The service as `serve` runs it, with a publisher beside it that takes orders.

`python -m benchmarks.publisher PORT FOLDER COMFYUI_URL`
"""

import asyncio
import sys
from pathlib import Path
from typing import Final

from benchmarks import orders, publishing
from benchmarks.servers import HOST
from comfy_api_service.bootstrap import parts
from comfy_api_service.cli import listening, server
from comfy_api_service.domain.account import LOCAL
from comfy_api_service.domain.events import Event, EventType, Preview, Progress
from comfy_api_service.domain.job import Status
from comfy_api_service.settings import Settings
from comfy_api_service.signals.base import Mailbox, Note
from comfy_api_service.signals.memory import MemorySignals

PICTURE: Final = b"\xff\xd8" + bytes(50_000)
DETAIL_BYTES: Final = 2_000
"""Of a durable event; real ones are smaller."""
MOST_FILLING: Final = 10_000
"""Events that fill more than what the system itself holds for a connection, 4 MB or so."""
FULL: Final = 64
"""Events in a mailbox that is not being emptied, if they are still there after:"""
STUCK_SECONDS: Final = 0.05
FLOOD_RATE: Final = 100.0
"""Events, with a preview each, a second for the one that is stuck."""


class Signals(MemorySignals):
    """The service's own, with a publisher."""

    async def publish_progress(
        self, names: list[str], rate: float, seconds: float, stuck: str | None = None
    ) -> dict[str, int]:
        """Progress for one name after the other; `stuck` gets more of everything than anybody could take."""

        def one(number: int) -> None:
            progress = Progress(50.0, 10, 20, "5", publishing.stamp())
            self.publish(Note(names[number % len(names)], LOCAL.id, 1, progress))

        both = [publishing.evenly(rate, seconds, one)]
        most = 0
        if stuck is not None:

            def more(number: int) -> None:
                nonlocal most
                self._event(stuck, MOST_FILLING + number)
                self.publish(Note(stuck, LOCAL.id, 1, Preview("image/jpeg", PICTURE)))
                most = max(most, self.waiting_for(stuck))

            both.append(publishing.evenly(FLOOD_RATE, seconds, more))
        await asyncio.gather(*both)
        return {"waiting": most + publishing.fullest_transport()}

    async def fill(self, name: str) -> int:
        """Durable events for a listener that does not read, until it is stuck and they stay in its mailbox."""
        (mailbox,) = self._by_job[name]
        for number in range(MOST_FILLING):
            self._event(name, number)
            if len(mailbox._events) >= FULL:  # noqa: SLF001 - what waits is nobody else's business
                await asyncio.sleep(STUCK_SECONDS)
                if len(mailbox._events) >= FULL:  # noqa: SLF001
                    return number
        raise RuntimeError("the listener took everything")

    def _event(self, name: str, number: int) -> None:
        event = Event(
            name, number + 2, EventType.ARTIFACT, Status.RUNNING, 0.0, {"detail": "x" * DETAIL_BYTES}
        )
        self.publish(Note(name, LOCAL.id, 1, event))

    def waiting_for(self, name: str) -> int:
        """Bytes in the mailboxes of a job's listeners."""
        return sum(_size(mailbox) for mailbox in self._by_job.get(name, ()))


def _size(mailbox: Mailbox) -> int:
    """Its events are all alike; writing each down would hold up those whose latency is measured."""
    waiting = mailbox._events  # noqa: SLF001 - what waits is nobody else's business
    events = len(waiting) * len(str(waiting[0].body)) if waiting else 0
    pictures = [note.body for note in mailbox._previews.values()]  # noqa: SLF001
    return events + sum(len(body.picture) for body in pictures if isinstance(body, Preview))


async def main() -> None:
    port, folder, comfyui_url = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    signals = Signals()
    vars(parts)["MemorySignals"] = lambda: signals  # the one thing that differs from `serve`
    settings = Settings(
        _env_file=None, data_dir=folder, comfyui_url=(comfyui_url,), port=port, shutdown_grace=0
    )

    async def beside(_url: str) -> None:
        await orders.obey({"publish": signals.publish_progress, "fill": signals.fill})

    sockets = listening.listen(HOST, port)
    try:
        await server.serve(
            settings, sockets, url=f"http://{HOST}:{port}", listening=lambda: None, beside=beside
        )
    finally:
        listening.close(sockets)


if __name__ == "__main__":
    orders.run(main)

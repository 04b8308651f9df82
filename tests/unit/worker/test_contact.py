"""What a worker believes of a backend, after what that answered and how long it took."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from comfy_api_service.comfyui.client import ComfyClient
from comfy_api_service.comfyui.errors import BackendError, NoAnswer, Unreachable
from comfy_api_service.comfyui.views import SystemStats
from comfy_api_service.db.base import Database
from comfy_api_service.signals.memory import MemorySignals
from comfy_api_service.telemetry import Metrics
from comfy_api_service.worker import oversight
from comfy_api_service.worker.contact import SUSPICION_SECONDS, Contact


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


class Client:
    """Answers, or fails as it is told after so many seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.fault: BackendError | None = None
        self.seconds = 0.0

    async def system_stats(self) -> SystemStats:
        self._clock.seconds += self.seconds
        if self.fault is not None:
            raise self.fault
        return SystemStats("0.8.0", "3.11", 0, 0, ())

    async def object_info(self) -> Mapping[str, Any]:
        return {
            "PreviewImage": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True}
        }


class Rows:
    async def write(self, function: Callable[[Any], Awaitable[Any]]) -> bool:
        del function
        return True


def _contact() -> tuple[Contact, Client, Clock]:
    clock = Clock()
    client = Client(clock)
    contact = Contact(
        "bck_1",
        "comfyui-1",
        "wrk_1",
        cast("ComfyClient", client),
        cast("Database", Rows()),
        MemorySignals(),
        clock,
        Metrics().add_backend("comfyui-1"),
        changed=lambda: None,
    )
    return contact, client, clock


async def test_a_question_without_an_answer_counts_from_its_end() -> None:
    """One that waits for its time-out is no proof that the backend was away all the while: a real server is
    silent for seconds while it loads a model, and was given up together with its jobs at the first time-out.
    """
    contact, client, clock = _contact()
    await contact._ask()
    client.fault, client.seconds = NoAnswer("The backend did not answer."), 10.0
    await contact._ask()
    assert contact.away_since is not None
    assert clock.monotonic() - contact.away_since < oversight.DEAD_SECONDS
    client.fault, client.seconds = None, 0.0
    await contact._ask()
    assert contact.away_since is None


async def test_a_suspect_that_was_restarted_is_trusted_again() -> None:
    contact, client, clock = _contact()
    await contact._ask()
    assert contact.permits()
    contact.suspect("it runs nothing")
    await contact._ask()
    assert not contact.permits()
    client.fault = Unreachable("The backend cannot be reached.")
    await contact._ask()
    client.fault = None
    await contact._ask()
    assert contact.permits()
    assert clock.monotonic() == 1_000.0


async def test_a_suspect_that_only_fell_silent_stays_one() -> None:
    contact, client, clock = _contact()
    contact.suspect("it makes no progress")
    client.fault = NoAnswer("The backend did not answer.")
    await contact._ask()
    client.fault = None
    await contact._ask()
    assert not contact.permits()
    clock.seconds += SUSPICION_SECONDS
    await contact._ask()
    assert contact.permits()

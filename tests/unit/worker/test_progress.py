"""What listeners are told of a job's progress, and when."""

import asyncio

from comfy_api_service.domain.events import Progress
from comfy_api_service.worker.progress import ProgressMeter, Teller

LIMIT = 10.0


class Listener:
    """Is told how many steps there were until then."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.steps = 0
        self.teller = Teller(self._hear)
        self._news = asyncio.Event()

    def step(self, count: int = 1, *, last: bool = False) -> None:
        for _ in range(count):
            self.steps += 1
            self.teller.heard(last=last)

    def _hear(self) -> None:
        self.told.append(self.steps)
        self._news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(LIMIT):
            while len(self.told) < count:
                self._news.clear()
                await self._news.wait()


async def test_the_newest_of_what_came_too_early_is_told_in_its_time() -> None:
    listener = Listener()
    listener.teller.open()
    listener.step(3)
    assert listener.told == [1]
    await listener.until(2)
    assert listener.told == [1, 3]


async def test_what_came_before_the_start_was_told_is_told_after_it() -> None:
    listener = Listener()
    listener.step(2)
    assert not listener.told
    listener.teller.open()
    assert listener.told == [2]


async def test_the_last_step_of_a_node_does_not_wait() -> None:
    listener = Listener()
    listener.teller.open()
    listener.step(2)
    listener.step(last=True)
    assert listener.told == [1, 3]


async def test_nothing_is_told_after_the_end() -> None:
    listener, other = Listener(), Listener()
    for one in (listener, other):
        one.teller.open()
        one.step(2)
    listener.teller.close()
    listener.step(last=True)
    await other.until(2)
    assert listener.told == [1]


def test_steps_of_all_samplers_fill_the_bar() -> None:
    meter = ProgressMeter(
        {
            "1": {"class_type": "KSampler", "inputs": {"steps": 10}},
            "2": {"class_type": "KSampler", "inputs": {"steps": 30}},
            "3": {"class_type": "VAEDecode", "inputs": {}},
        }
    )
    for node, step, total, percent in (
        ("1", 10, 10, 22.5),
        ("2", 15, 30, 56.2),
        ("2", 3, 30, 56.2),
        ("2", 30, 30, 90.0),
    ):
        meter.stepped(node, step, total)
        assert meter.progress() == Progress(percent, step, total, node, "KSampler")
    meter.node_started("3", 0.0)
    assert meter.progress() == Progress(95.0, None, None, "3", "VAEDecode")

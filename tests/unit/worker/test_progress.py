"""What listeners are told of a job's progress, and when."""

import asyncio

from comfy_api_service.domain.events import Progress
from comfy_api_service.worker.progress import ProgressMeter, Teller

LIMIT = 10.0


def at(node: str, step: int | None = None, total: int | None = None) -> Progress:
    return Progress(0.0, step, total, node, None)


class Listener:
    def __init__(self) -> None:
        self.told: list[Progress] = []
        self._news = asyncio.Event()

    def __call__(self, progress: Progress) -> None:
        self.told.append(progress)
        self._news.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(LIMIT):
            while len(self.told) < count:
                self._news.clear()
                await self._news.wait()


async def test_the_newest_of_what_came_too_early_is_told_in_its_time() -> None:
    listener = Listener()
    teller = Teller(listener)
    teller.open()
    for node in ("1", "2", "3"):
        teller.say(at(node))
    assert listener.told == [at("1")]
    await listener.until(2)
    assert listener.told == [at("1"), at("3")]


async def test_what_came_before_the_start_was_told_is_told_after_it() -> None:
    listener = Listener()
    teller = Teller(listener)
    teller.say(at("1"))
    teller.say(at("2"))
    assert not listener.told
    teller.open()
    assert listener.told == [at("2")]


async def test_the_last_step_of_a_node_does_not_wait() -> None:
    listener = Listener()
    teller = Teller(listener)
    teller.open()
    for step in (1, 2, 3):
        teller.say(at("5", step, 3))
    assert listener.told == [at("5", 1, 3), at("5", 3, 3)]


async def test_nothing_is_told_after_the_end() -> None:
    listener, other = Listener(), Listener()
    teller, later = Teller(listener), Teller(other)
    for one in (teller, later):
        one.open()
        one.say(at("1"))
    teller.say(at("2"))
    teller.close()
    teller.say(at("3", 1, 1))
    later.say(at("2"))
    await other.until(2)
    assert listener.told == [at("1")]


def test_steps_of_all_samplers_fill_the_bar() -> None:
    meter = ProgressMeter(
        {
            "1": {"class_type": "KSampler", "inputs": {"steps": 10}},
            "2": {"class_type": "KSampler", "inputs": {"steps": 30}},
            "3": {"class_type": "VAEDecode", "inputs": {}},
        }
    )
    assert meter.stepped("1", 10, 10).percent == 22.5
    assert meter.stepped("2", 15, 30).percent == 56.2
    assert meter.stepped("2", 3, 30).percent == 56.2
    assert meter.stepped("2", 30, 30).percent == 90.0
    assert meter.node_started("3", 0.0) == Progress(95.0, None, None, "3", "VAEDecode")

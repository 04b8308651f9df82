"""The short form of `python -m tests.support.hook_load`: real processes, one of them killed in between."""

from tests.support.hook_load import run


async def test_every_event_comes_to_every_receiver_though_the_service_is_killed() -> None:
    figures = await run(230, rate=20.0)
    assert figures["events of jobs"] >= 20
    assert figures["delivered"] == figures["deliveries"] - figures["events of jobs"]

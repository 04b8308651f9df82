"""The circuit breaker opens on failures in a row and closes by one probe."""

from hypothesis import given
from hypothesis import strategies as st

from comfy_api_service.domain.breaker import (
    CLOSED,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    THRESHOLD,
    Breaker,
    BreakerState,
)


def failed(times: int, now: float = 100.0, breaker: Breaker = CLOSED) -> Breaker:
    for _ in range(times):
        breaker = breaker.failed(now)
    return breaker


def test_it_opens_at_the_threshold_and_not_before() -> None:
    assert failed(THRESHOLD - 1).state is BreakerState.CLOSED
    assert failed(THRESHOLD - 1).permits(100.0)
    opened = failed(THRESHOLD)
    assert (opened.state, opened.opened_at) == (BreakerState.OPEN, 100.0)
    assert not opened.permits(100.0)


def test_a_success_between_failures_starts_the_count_anew() -> None:
    assert failed(THRESHOLD - 1, breaker=failed(THRESHOLD - 1).succeeded()).state is BreakerState.CLOSED


def test_one_probe_goes_when_the_pause_is_over() -> None:
    opened = failed(THRESHOLD)
    assert not opened.permits(100.0 + FIRST_PAUSE - 0.01)
    assert opened.permits(100.0 + FIRST_PAUSE)
    probing = opened.probe(100.0 + FIRST_PAUSE)
    assert probing.state is BreakerState.HALF_OPEN
    assert not probing.permits(100.0 + FIRST_PAUSE)
    assert probing.succeeded() == CLOSED


def test_a_probe_that_is_never_heard_of_again_bars_the_way_for_one_pause() -> None:
    probing = failed(THRESHOLD).probe(200.0)
    assert not probing.permits(200.0 + FIRST_PAUSE - 0.01)
    assert probing.permits(200.0 + FIRST_PAUSE)
    assert not probing.probe(200.0 + FIRST_PAUSE).permits(200.0 + FIRST_PAUSE)


def test_pauses_grow_to_the_longest() -> None:
    breaker, now, pauses = failed(THRESHOLD), 100.0, []
    for _ in range(6):
        pauses.append(breaker.pause)
        now += breaker.pause
        breaker = breaker.probe(now).failed(now)
        assert breaker.state is BreakerState.OPEN
        assert not breaker.permits(now)
    assert pauses == [10, 20, 40, 60, 60, 60]
    assert breaker.succeeded().pause == 0


def test_late_failures_do_not_extend_the_pause() -> None:
    opened = failed(THRESHOLD)
    late = opened.failed(105.0).failed(109.0)
    assert (late.opened_at, late.pause, late.failures) == (100.0, FIRST_PAUSE, THRESHOLD + 2)
    assert late.permits(100.0 + FIRST_PAUSE)


def test_a_probe_that_is_not_permitted_or_not_needed_changes_nothing() -> None:
    assert CLOSED.probe(1.0) is CLOSED
    opened = failed(THRESHOLD)
    assert opened.probe(101.0) is opened


@given(st.lists(st.tuples(st.sampled_from("fsp"), st.floats(0, 30)), max_size=60))
def test_it_is_never_shut_for_longer_than_the_longest_pause(events: list[tuple[str, float]]) -> None:
    breaker, now = CLOSED, 0.0
    for kind, passed in events:
        now += passed
        if kind == "f":
            breaker = breaker.failed(now)
        elif kind == "s":
            breaker = breaker.succeeded()
            assert breaker.permits(now)
        else:
            breaker = breaker.probe(now)
        assert breaker.permits(now + LONGEST_PAUSE)
        assert breaker.permits(now) or breaker.failures >= THRESHOLD

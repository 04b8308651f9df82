from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from comfy_api_service.domain.times import iso


@given(st.integers(0, 7_000_000_000_000))
@example(0)
@example(1_709_164_799_999)  # the end of 28 February in a leap year
def test_a_time_is_told_as_the_calendar_has_it(milliseconds: int) -> None:
    seconds, rest = divmod(milliseconds, 1000)
    expected = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"
    assert iso(seconds + (rest + 0.5) / 1000) == expected

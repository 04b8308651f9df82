"""Burst: few callers, and every fifth of the time ten times as many at once, for a while."""

from typing import ClassVar

from locust import LoadTestShape, task
from tests.load.profiles.calls import Caller

BURSTS = 3
TIMES = 10
"""As many callers in a burst."""


class Bursting(Caller):
    @task
    def job(self) -> None:
        self.whole()


class Shape(LoadTestShape):
    """Calm, burst, calm, burst, calm, burst, calm: each a seventh of the time."""

    use_common_options: ClassVar[bool] = True

    def tick(self) -> tuple[int, float] | None:
        options = self.runner.environment.parsed_options if self.runner else None
        if options is None or self.get_run_time() >= options.run_time:
            return None
        part = int((2 * BURSTS + 1) * self.get_run_time() / options.run_time)
        many = options.num_users * (TIMES if part % 2 else 1)
        return many, float(many)

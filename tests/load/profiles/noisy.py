"""Noisy neighbour: after a third of the time one account submits as fast as it can; what do the others feel of it?"""

from typing import ClassVar

from locust import LoadTestShape, User, constant, task
from tests.load.profiles.calls import Caller, key_of

NOISE = 4
"""Connections over which the noisy one submits."""
ALONE, BESIDE = "job of a quiet caller, alone", "job of a quiet caller, beside the noise"


def _noise_runs(caller: User) -> bool:
    options, runner = caller.environment.parsed_options, caller.environment.runner
    return runner is not None and options is not None and runner.user_classes_count.get("Noisy", 0) > 0


class Quiet(Caller):
    """Of all accounts but the first."""

    first_key = 1

    @task
    def job(self) -> None:
        self.whole(BESIDE if _noise_runs(self) else ALONE)


class Noisy(Caller):
    """Of the first account; looks at nothing, waits for nothing."""

    wait_time = constant(0.02)

    def on_start(self) -> None:
        key = key_of(0)
        if key is not None:
            self.client.headers["X-API-Key"] = key

    @task
    def job(self) -> None:
        self.submit("submit (noise)")


class Shape(LoadTestShape):
    use_common_options: ClassVar[bool] = True

    def tick(self) -> tuple[int, float, list[type[User]]] | None:
        options = self.runner.environment.parsed_options if self.runner else None
        if options is None or self.get_run_time() >= options.run_time:
            return None
        if self.get_run_time() < options.run_time / 3:
            return options.num_users, float(options.num_users), [Quiet]
        return options.num_users + NOISE, float(NOISE), [Quiet, Noisy]

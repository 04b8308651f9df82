"""What callers of all profiles do: submit, wait for the end, fetch the picture; and how answers are judged.

A refusal with `Retry-After` is an answer as promised: it counts as a request of its own name, not as a failure. The
time from submission to end is told as a request too, so that it has its percentiles and its line in the report.
"""

import itertools
import os
import random
import threading
import time
from typing import Any, Final, cast

from locust import HttpUser, constant_pacing
from locust.clients import ResponseContextManager

KEYS: Final = "LOAD_KEYS"
"""Variable with the API keys, comma-separated; without it nobody says who calls."""
JOBS: Final = "LOAD_JOBS"
"""Variable with the number of jobs after whose end the test ends; without it, only its time ends it."""
ENDS: Final = ("succeeded", "failed", "canceled")
REFUSED: Final = (429, 503)
LIMIT: Final = 300.0
"""Seconds after which a job that has not ended is a failure."""
_keys = [key for key in os.environ.get(KEYS, "").split(",") if key]
_turn = itertools.count()
_ended = itertools.count(1)


def key_of(number: int) -> str | None:
    return _keys[number % len(_keys)] if _keys else None


class Caller(HttpUser):
    """Of one account; those of a profile take the keys in turn."""

    abstract = True
    wait_time = constant_pacing(2)
    first_key = 0
    """The key of this number and those after it are for this kind of callers."""

    def on_start(self) -> None:
        spread = max(1, len(_keys) - self.first_key)
        key = key_of(self.first_key + next(_turn) % spread)
        if key is not None:
            self.client.headers["X-API-Key"] = key

    def submit(self, name: str = "submit") -> str | None:
        """The id of a new job; None if it was refused."""
        body = {
            "prompt": "a lighthouse",
            "steps": 4,
            "width": 64,
            "height": 64,
            "seed": random.getrandbits(48),
        }
        with self.client.post("/api/v1/jobs", json=body, name=name, catch_response=True) as answer:
            if answer.status_code == 202:
                return str(answer.json()["job_id"])
            self._refused(answer, name)
        return None

    def _refused(self, answer: ResponseContextManager, name: str) -> None:
        if answer.status_code in REFUSED and "Retry-After" in answer.headers:
            told = cast("dict[str, Any]", answer.request_meta)
            told["name"] = f"{name}: refused with Retry-After ({answer.status_code})"
            answer.success()
        else:
            answer.failure(f"answered {answer.status_code}")

    def follow(self, job_id: str, name: str = "from submission to end") -> str:
        """Until it ends: how."""
        began = time.monotonic()
        status, pause = "", 0.1
        while status not in ENDS and time.monotonic() < began + LIMIT:
            time.sleep(pause)
            pause = min(1.0, 1.3 * pause)
            status = str(self._job(job_id).get("status", ""))
        self.environment.events.request.fire(
            request_type="JOB",
            name=name,
            response_time=1000 * (time.monotonic() - began),
            response_length=0,
            exception=None if status == "succeeded" else RuntimeError(f"ended as {status or 'nothing'}"),
            context={},
        )
        return status

    def _count(self) -> None:
        if next(_ended) == int(os.environ.get(JOBS, "0")) and self.environment.runner is not None:
            # It stops all callers: this one would wait for itself.
            threading.Thread(target=self.environment.runner.quit, daemon=True).start()

    def _job(self, job_id: str) -> dict[str, Any]:
        with self.client.get(f"/api/v1/jobs/{job_id}", name="look", catch_response=True) as answer:
            if answer.status_code == 200:
                found: dict[str, Any] = answer.json()
                return found
            self._refused(answer, "look")
        return {}

    def picture(self, job_id: str) -> None:
        self.client.get(f"/api/v1/jobs/{job_id}/image", name="picture")

    def whole(self, name: str = "from submission to end") -> None:
        """A job from its submission to its picture."""
        job_id = self.submit()
        if job_id is not None and self.follow(job_id, name) == "succeeded":
            self.picture(job_id)
            self._count()

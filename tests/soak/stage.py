"""A scene with the commands as they are, without failpoints, that ask who calls; for soak and load."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import ClassVar

import httpx2
from tests.chaos.scene import Scene
from tests.support.doors import new_keys


class Stage(Scene):
    launcher = "comfy_api_service"
    settings: ClassVar[Mapping[str, str]] = {"AUTH_ENABLED": "true"}
    keys: Sequence[str] = ()

    def admit(self, tiers: Sequence[str]) -> None:
        """Make an account of each of these tiers."""
        self.keys = new_keys(self.environment(next(iter(self.doors))), tiers)

    def open_jobs(self) -> int | None:
        """Of all accounts; None if the service does not say."""
        with suppress(httpx2.TransportError):
            found = 0
            for key in self.keys:
                answer = httpx2.get(
                    f"{self._answering().url}/api/v1/jobs",
                    params={"status": ["queued", "running"], "limit": 100},
                    headers={"X-API-Key": key},
                    timeout=10,
                    trust_env=False,
                )
                if not answer.is_success:
                    return None
                found += len(answer.json()["jobs"])
            return found
        return None

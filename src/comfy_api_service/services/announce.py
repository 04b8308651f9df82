"""Tell what was committed: to listeners, to the metrics, to the log. Never before the commit."""

from collections.abc import Callable

import structlog

from comfy_api_service.db.endings import Change
from comfy_api_service.domain.events import Event, EventType
from comfy_api_service.signals.base import Note, Signals
from comfy_api_service.telemetry import Metrics

log = structlog.get_logger()


class Announcer:
    def __init__(self, signals: Signals, metrics: Metrics) -> None:
        self._signals = signals
        self._metrics = metrics
        self._told: list[Callable[[], None]] = []

    def on_change(self, act: Callable[[], None]) -> None:
        """Call `act` after each transition that this process has committed."""
        self._told.append(act)

    def announce(self, job_id: str, change: Change) -> None:
        """The durable events of a transition, in their order."""
        for event in change.events:
            job = change.job if event.type is EventType.DONE else None
            self._signals.publish(Note(job_id, change.account_id, change.attempt, event, job))
            self._note(event, change)
        for act in self._told:
            act()

    def _note(self, event: Event, change: Change) -> None:
        """Count and log; never the error's message, which may quote a node's own words."""
        told = {"job_id": event.job_id, "account_id": change.account_id, "attempt": change.attempt}
        if event.type is EventType.REQUEUED:
            log.info("job_requeued", reason=event.data["reason"], **told)
        if event.type is EventType.DONE:
            code = event.data.get("error", {}).get("code")
            self._metrics.jobs.labels(event.status).inc()
            if code is not None:
                self._metrics.failures.labels(code).inc()
                told["code"] = code
            seconds = round(event.at - change.queued_at, 3)
            log.info("job_ended", status=event.status, seconds=seconds, **told)

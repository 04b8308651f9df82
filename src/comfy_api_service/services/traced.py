"""Use cases where traces are on: each job is given its place in a trace, its entry is told, and each attempt to deliver
its webhooks.
"""

from typing import Any

from comfy_api_service.domain.account import Account
from comfy_api_service.domain.submission import NewJob, Order
from comfy_api_service.services.lane_work import LaneWork, Ready, Sent
from comfy_api_service.services.submit import Submitter
from comfy_api_service.telemetry.traced_jobs import job_span
from comfy_api_service.telemetry.traceparent import span_of_submission, stored_place
from comfy_api_service.telemetry.tracing import CLIENT, PRODUCER, Tracing, fail


class TracedSubmitter(Submitter):
    def __init__(self, tracing: Tracing, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tracing = tracing

    async def prepare(self, account: Account, order: Order) -> NewJob:
        with self._tracing.span("job prepare"):
            new = await super().prepare(account, order)
        here = self._tracing.here()
        if here is None:
            return new
        return new._replace(trace_context=str(here.at(span_of_submission(new.id))))

    def announce(self, new: NewJob) -> None:
        """The job is on the disk: this is where its entry ended, alone or in a batch."""
        super().announce(new)
        here, place = self._tracing.here(), stored_place(new.trace_context)
        if here is None or place is None:
            return
        self._tracing.tell(
            "job submit",
            under=here,
            span_id=place.span_id,
            start=new.queued_at,
            end=self._clock.now(),
            kind=PRODUCER,
            attributes={
                "messaging.system": "comfyui",
                "messaging.destination.name": "jobs",
                "messaging.operation.name": "submit",
                "messaging.operation.type": "send",
                "messaging.message.id": new.id,
                "comfyui.job.id": new.id,
                "comfyui.job.images": new.images,
            },
        )


class TracedLaneWork(LaneWork):
    """The receiver, a stranger, is told nothing of the trace, and the trace nothing of its address."""

    def __init__(self, tracing: Tracing, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tracing = tracing

    async def _send(self, ready: Ready) -> Sent:
        delivery = ready.delivery
        attributes = {
            "http.request.method": "POST",
            "http.request.resend_count": delivery.attempts,
            "comfyui.job.id": delivery.job_id or "",
            "comfyui.webhook.delivery": delivery.id,
            "comfyui.webhook.event": delivery.type.value,
        }
        with job_span(
            self._tracing, delivery.trace_context, "webhook deliver", kind=CLIENT, attributes=attributes
        ) as span:
            sent = await super()._send(ready)
            if span is not None:
                if sent.reply.status is not None:
                    span.set_attribute("http.response.status_code", sent.reply.status)
                if sent.reply.error is not None:
                    fail(span, sent.reply.error.value)
        return sent

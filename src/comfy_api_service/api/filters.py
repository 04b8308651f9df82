"""Which jobs a list shows: from a query's text to the filters of the use case."""

from typing import Annotated, Final

from fastapi import Depends, Query

from comfy_api_service.api.parameters import moment
from comfy_api_service.api.schemas.base import BATCH_ID_PATTERN, WORKFLOW_ID_PATTERN
from comfy_api_service.api.schemas.submission import LABEL_KEY, LABEL_VALUE
from comfy_api_service.db.jobs import JobFilters
from comfy_api_service.domain.job import Status

_TIME: Final = {"format": "date-time"}


def job_filters(
    status: Annotated[list[Status] | None, Query(max_length=5, description="Any of these.")] = None,
    batch_id: Annotated[str | None, Query(pattern=BATCH_ID_PATTERN)] = None,
    since: Annotated[
        str | None, Query(json_schema_extra=_TIME, description="Queued then or later; UTC if it has no zone.")
    ] = None,
    until: Annotated[str | None, Query(json_schema_extra=_TIME, description="Queued before.")] = None,
    label: Annotated[
        str | None,
        Query(
            max_length=400,
            pattern=f"{LABEL_KEY[:-1]}:{LABEL_VALUE[1:]}",
            description="`key:value`, both exactly.",
        ),
    ] = None,
    workflow_id: Annotated[
        str | None, Query(pattern=WORKFLOW_ID_PATTERN, description="Made from this stored workflow.")
    ] = None,
) -> JobFilters:
    return JobFilters(
        statuses=frozenset(status or ()),
        batch_id=batch_id,
        since=moment("since", since),
        until=moment("until", until),
        label=_pair(label),
        workflow_id=workflow_id,
    )


def _pair(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    key, _, value = text.partition(":")
    return key, value


Filters = Annotated[JobFilters, Depends(job_filters)]

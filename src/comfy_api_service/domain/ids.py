"""Identifiers: made here and nowhere else, so that their shapes are known in one place."""

import re
import uuid
from typing import Final

import uuid_utils

CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
JOB_ID: Final = re.compile(r"job_[0-9A-HJKMNP-TV-Z]{26}")
BATCH_ID: Final = re.compile(r"batch_[0-9A-HJKMNP-TV-Z]{26}")
UPLOAD_ID: Final = re.compile(r"upl_[0-9A-HJKMNP-TV-Z]{26}")
WEBHOOK_ID: Final = re.compile(r"whk_[0-9A-HJKMNP-TV-Z]{26}")
DELIVERY_ID: Final = re.compile(r"msg_[0-9A-HJKMNP-TV-Z]{26}")
ACCOUNT_ID: Final = re.compile(r"acc_(?:local|[0-9A-HJKMNP-TV-Z]{26})")

LOCAL_ACCOUNT: Final = "acc_local"
"""The one account that owns everything while authentication is off."""


_PAIRS: Final = tuple(first + second for first in CROCKFORD for second in CROCKFORD)


def _sortable() -> str:
    """26 characters of Crockford's base 32 that sort by the time of their making (a UUID version 7)."""
    number = uuid_utils.uuid7().int
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def new_job_id() -> str:
    return f"job_{_sortable()}"


def new_batch_id() -> str:
    return f"batch_{_sortable()}"


def new_worker_id() -> str:
    return f"wrk_{_sortable()}"


def new_request_id() -> str:
    """Of every request, so in the form that costs least."""
    return f"req_{uuid_utils.uuid7().hex}"


def new_prompt_id() -> str:
    """A lowercase UUID: newer ComfyUI servers refuse any other form."""
    return str(uuid.uuid4())


def new_client_id() -> str:
    """The id of one session with one backend; random, never shared by two living processes."""
    return uuid.uuid4().hex


def new_account_id() -> str:
    return f"acc_{_sortable()}"


def new_session_id() -> str:
    return f"ses_{_sortable()}"


def new_upload_id() -> str:
    return f"upl_{_sortable()}"


def new_workflow_id() -> str:
    return f"wfl_{_sortable()}"


def new_webhook_id() -> str:
    return f"whk_{_sortable()}"


def new_delivery_id() -> str:
    """Receivers see it as `webhook-id`, the same however often the delivery is tried."""
    return f"msg_{_sortable()}"


def new_deliverer_id() -> str:
    return f"dlv_{_sortable()}"

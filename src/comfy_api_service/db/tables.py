"""The tables. Times are seconds since the epoch (UTC); JSON columns are text; money is counted in images."""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from comfy_api_service.db.lanes import UNCAPPED

TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Compared by its bytes on either engine: ids sort by time, and locks are taken in the order of Python's `sorted`."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _text(name: str, *, null: bool = False, default: str | None = None) -> Column[str]:
    return Column(name, TEXT, nullable=null, server_default=default)


def _time(name: str, *, null: bool = False) -> Column[float]:
    return Column(name, Double, nullable=null)


def _count(name: str, default: int = 0) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text(str(default)))


def _real(name: str, default: float = 0) -> Column[float]:
    return Column(name, Double, nullable=False, server_default=text(str(default)))


accounts = Table(
    "accounts",
    metadata,
    Column("id", TEXT, primary_key=True),
    _text("name"),
    _text("tier"),
    _text("role", default="user"),
    _time("created_at"),
    _time("disabled_at", null=True),
    _text("email", null=True),  # small letters, as the username
    _text("username", null=True),
    _text("password_hash", null=True),
    _text("overrides", null=True),  # of the tier's limits
)
Index("ix_accounts_email", accounts.c.email, unique=True)
Index("ix_accounts_username", accounts.c.username, unique=True)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("account_id", TEXT, ForeignKey("accounts.id"), nullable=False),
    _text("name"),
    _text("digest"),
    _text("scopes"),
    _time("created_at"),
    _time("expires_at", null=True),
    _time("used_at", null=True),
    _time("revoked_at", null=True),
)
Index(None, api_keys.c.account_id)

sessions = Table(
    "sessions",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("account_id", TEXT, ForeignKey("accounts.id"), nullable=False),
    _time("created_at"),
    _time("expires_at"),
    _time("revoked_at", null=True),
)
Index(None, sessions.c.account_id)
Index(None, sessions.c.expires_at)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("digest", TEXT, primary_key=True),
    Column("session_id", TEXT, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    _time("created_at"),
    _time("used_at", null=True),
)
Index(None, refresh_tokens.c.session_id)

tickets = Table(
    "tickets",
    metadata,
    Column("digest", TEXT, primary_key=True),
    _text("credential_kind"),
    _text("credential_id"),
    _time("expires_at"),
)
Index(None, tickets.c.expires_at)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    _time("at"),
    _text("action"),
    _text("actor_id", null=True),
    _text("target", null=True),
    _text("address", null=True),
    _text("request_id", null=True),
    _text("data"),
)
Index(None, audit.c.at)

lanes = Table(
    "lanes",
    metadata,
    Column("account_id", TEXT, ForeignKey("accounts.id"), primary_key=True),
    _real("weight", 1),
    _count("cap", UNCAPPED),
    _count("running"),
    _count("queued"),
    _real("queued_cost"),
    _count("entered"),
    _real("entered_cost"),
    _real("vtime"),
    _count("served"),
)
_ELIGIBLE = text("queued > 0 AND running < cap")
Index(
    "ix_lanes_eligible",
    lanes.c.vtime,
    lanes.c.account_id,
    sqlite_where=_ELIGIBLE,
    postgresql_where=_ELIGIBLE,
)

requirements = Table(
    "requirements",
    metadata,
    Column("id", TEXT, primary_key=True),
    _text("nodes"),
    _text("models"),
    _text("primary_model", null=True),
    _time("created_at"),
    _time("unservable_since", null=True),
)

capabilities = Table(
    "capabilities",
    metadata,
    _text("inventory_hash"),
    Column("requirement_id", TEXT, ForeignKey("requirements.id", ondelete="CASCADE"), nullable=False),
    PrimaryKeyConstraint("inventory_hash", "requirement_id"),
)
Index(None, capabilities.c.requirement_id)

lane_needs = Table(
    "lane_needs",
    metadata,
    Column("account_id", TEXT, ForeignKey("lanes.account_id"), nullable=False),
    Column("requirement_id", TEXT, ForeignKey("requirements.id"), nullable=False),
    _count("queued"),
    PrimaryKeyConstraint("account_id", "requirement_id"),
)
Index(None, lane_needs.c.requirement_id)

jobs = Table(
    "jobs",
    metadata,
    Column("id", TEXT, primary_key=True),
    _text("account_id"),
    _text("state"),
    _count("seq"),
    _count("attempt"),
    _count("executed"),
    _count("max_attempts", 3),
    _count("out_of_memory"),
    _count("backends_killed"),
    _count("priority"),
    _text("requirement_id"),
    _real("cost"),
    _count("ordinal"),
    _real("ordinal_cost"),
    _count("images", 1),
    _text("timing_key"),
    _text("params"),
    _text("labels"),
    _text("output"),
    Column("graph", LargeBinary, nullable=True),
    _text("fingerprint"),
    _text("webhook_url", null=True),
    Column("batch_id", TEXT, ForeignKey("batches.id"), nullable=True),
    Column("batch_index", Integer, nullable=True),
    _time("queued_at"),
    _time("started_at", null=True),
    _time("finished_at", null=True),
    _time("deadline_at", null=True),
    _time("cancel_requested_at", null=True),
    _time("expires_at", null=True),
    _time("purged_at", null=True),
    _text("backend_id", null=True),
    _text("error", null=True),
    _text("results", null=True),
    _text("cache", null=True),
    Column("generation_time", Double, nullable=True),
    Column("retention", Double, nullable=True),
    _text("inputs", null=True),  # files of callers, by node and input
    _text("workflow_id", null=True),
    Column("workflow_version", Integer, nullable=True),
    _text("trace_context", null=True),  # as in a `traceparent`
)
_READY = text("state = 'ready'")
_OPEN = text("state IN ('dispatched', 'executing', 'storing')")
Index("ix_jobs_ready", jobs.c.account_id, jobs.c.requirement_id, jobs.c.priority.desc(), jobs.c.id,
      sqlite_where=_READY, postgresql_where=_READY)  # fmt: skip
Index("ix_jobs_open", jobs.c.backend_id, sqlite_where=_OPEN, postgresql_where=_OPEN)
Index("ix_jobs_account", jobs.c.account_id, jobs.c.id)
_DUE = text("deadline_at IS NOT NULL AND state IN ('ready', 'dispatched', 'executing', 'storing')")
Index("ix_jobs_deadline", jobs.c.deadline_at, sqlite_where=_DUE, postgresql_where=_DUE)
_KEPT = text("expires_at IS NOT NULL AND purged_at IS NULL")
Index("ix_jobs_expiry", jobs.c.expires_at, sqlite_where=_KEPT, postgresql_where=_KEPT)
_DONE = text("finished_at IS NOT NULL")
Index("ix_jobs_finished", jobs.c.finished_at, sqlite_where=_DONE, postgresql_where=_DONE)
_UNSUCCESSFUL = text("state IN ('failed', 'canceled')")
Index("ix_jobs_unsuccessful", jobs.c.account_id, jobs.c.state, jobs.c.id,
      sqlite_where=_UNSUCCESSFUL, postgresql_where=_UNSUCCESSFUL)  # fmt: skip
Index("ix_jobs_unsuccessful_of_all", jobs.c.state, jobs.c.id,
      sqlite_where=_UNSUCCESSFUL, postgresql_where=_UNSUCCESSFUL)  # fmt: skip
_SUCCEEDED = text("state = 'succeeded'")
Index("ix_jobs_succeeded", jobs.c.state, jobs.c.id,
      sqlite_where=_SUCCEEDED, postgresql_where=_SUCCEEDED)  # fmt: skip
_OLDEST = text("state = 'ready'")
Index("ix_jobs_oldest", jobs.c.queued_at, sqlite_where=_OLDEST, postgresql_where=_OLDEST)
Index("ix_jobs_fingerprint", jobs.c.account_id, jobs.c.fingerprint)
_BATCHED = text("batch_id IS NOT NULL")
Index("ix_jobs_batch", jobs.c.batch_id, sqlite_where=_BATCHED, postgresql_where=_BATCHED)

_OF_TEMPLATE = text("workflow_id IS NOT NULL")
Index("ix_jobs_workflow", jobs.c.account_id, jobs.c.workflow_id, jobs.c.id,
      sqlite_where=_OF_TEMPLATE, postgresql_where=_OF_TEMPLATE)  # fmt: skip

job_labels = Table(
    "job_labels",
    metadata,
    Column("job_id", TEXT, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    _text("account_id"),
    _text("key"),
    _text("value"),
    PrimaryKeyConstraint("job_id", "key"),
)
Index(
    "ix_job_labels_value", job_labels.c.account_id, job_labels.c.key, job_labels.c.value, job_labels.c.job_id
)

attempts = Table(
    "attempts",
    metadata,
    Column("prompt_id", TEXT, primary_key=True),
    Column("job_id", TEXT, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    _text("backend_id"),
    _text("worker_id"),
    _text("client_id"),
    _text("outcome", null=True),
    _time("dispatched_at"),
    _time("executing_at", null=True),
    _time("closed_at", null=True),
    UniqueConstraint("job_id", "number"),
)
_UNSETTLED = text("closed_at IS NULL")
Index("ix_attempts_unsettled", attempts.c.backend_id, sqlite_where=_UNSETTLED, postgresql_where=_UNSETTLED)

artifacts = Table(
    "artifacts",
    metadata,
    Column("job_id", TEXT, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("idx", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    _text("node_id"),
    _text("kind"),
    _text("media_type"),
    Column("width", Integer, nullable=True),
    Column("height", Integer, nullable=True),
    _count("bytes"),
    _text("sha256"),
    _text("key"),
    _text("seed", null=True),
    _text("meta"),
    PrimaryKeyConstraint("job_id", "idx"),
)

events = Table(
    "events",
    metadata,
    Column("job_id", TEXT, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("seq", Integer, nullable=False),
    _text("type"),
    _text("status"),
    _time("at"),
    _text("data"),
    PrimaryKeyConstraint("job_id", "seq"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    _text("job_id"),
    _text("account_id"),
    Column("seq", Integer, nullable=False),
    _text("type"),
    _time("at"),
    _time("handled_at", null=True),
    UniqueConstraint("job_id", "seq"),
)
_WAITING = text("handled_at IS NULL")
Index("ix_outbox_waiting", outbox.c.id, sqlite_where=_WAITING, postgresql_where=_WAITING)
Index(None, outbox.c.at)

ledger = Table(
    "ledger",
    metadata,
    Column("job_id", TEXT, primary_key=True),
    Column("account_id", TEXT, ForeignKey("accounts.id"), nullable=False),
    _text("day"),
    _count("reserved"),
    Column("charged", BigInteger, nullable=True),
    _real("gpu_seconds"),
    _time("settled_at", null=True),
)
Index("ix_ledger_day", ledger.c.account_id, ledger.c.day)

usage_days = Table(
    "usage_days",
    metadata,
    Column("account_id", TEXT, ForeignKey("accounts.id"), nullable=False),
    _text("day"),
    _count("reserved"),
    _count("charged"),
    _real("gpu_seconds"),
    PrimaryKeyConstraint("account_id", "day"),
)
Index("ix_usage_days_day", usage_days.c.day, usage_days.c.account_id)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("account_id", TEXT, ForeignKey("accounts.id"), nullable=False),
    _text("key"),
    _text("fingerprint"),
    _text("job_id"),  # or the batch's id
    _time("created_at"),
    PrimaryKeyConstraint("account_id", "key"),
)
Index(None, idempotency_keys.c.created_at)

batches = Table(
    "batches",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("account_id", TEXT, ForeignKey("accounts.id"), nullable=False),
    _time("created_at"),
    Column("total", Integer, nullable=False),
    _text("others"),
)
Index(None, batches.c.created_at)

uploads = Table(
    "uploads",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("account_id", TEXT, ForeignKey("accounts.id"), nullable=False),
    _text("sha256"),
    _text("media_type"),
    Column("width", Integer, nullable=True),
    Column("height", Integer, nullable=True),
    _count("bytes"),
    _text("key"),
    _time("created_at"),
    _time("expires_at"),
    UniqueConstraint("account_id", "sha256"),
)
Index(None, uploads.c.expires_at)

job_uploads = Table(  # while the job is open, the upload is kept
    "job_uploads",
    metadata,
    Column("job_id", TEXT, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    _text("upload_id"),
    PrimaryKeyConstraint("upload_id", "job_id"),
)
Index(None, job_uploads.c.job_id)

workflows = Table(
    "workflows",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("account_id", TEXT, ForeignKey("accounts.id"), nullable=False),
    _text("name"),
    _text("description"),
    Column("version", Integer, nullable=False),  # the latest
    _time("published_at", null=True),
    _time("created_at"),
    _time("updated_at"),
)
Index("ix_workflows_account_id", workflows.c.account_id, workflows.c.id)
_PUBLISHED = text("published_at IS NOT NULL")
Index("ix_workflows_published", workflows.c.id, sqlite_where=_PUBLISHED, postgresql_where=_PUBLISHED)

workflow_versions = Table(
    "workflow_versions",
    metadata,
    Column("workflow_id", TEXT, ForeignKey("workflows.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("document", LargeBinary, nullable=False),
    _time("created_at"),
    PrimaryKeyConstraint("workflow_id", "number"),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("account_id", TEXT, ForeignKey("accounts.id"), nullable=False),
    _text("url"),
    _text("events"),
    Column("secret", LargeBinary, nullable=False),  # sealed, as the old one, which is good for a while longer
    Column("old_secret", LargeBinary, nullable=True),
    _time("old_secret_until", null=True),
    _time("created_at"),
    _time("updated_at"),
    _time("disabled_at", null=True),
    _text("disabled_reason", null=True),
    _time("failing_since", null=True),  # nothing was delivered since then
    _time("deleted_at", null=True),  # nobody sees it any more; it goes after its deliveries
)
Index("ix_webhooks_account_id", webhooks.c.account_id, webhooks.c.id)
_DISABLED = text("disabled_at IS NOT NULL")
Index("ix_webhooks_disabled", webhooks.c.disabled_at, sqlite_where=_DISABLED, postgresql_where=_DISABLED)

webhook_secrets = Table(  # what deliveries to a job's own URL are signed with
    "webhook_secrets",
    metadata,
    Column("account_id", TEXT, ForeignKey("accounts.id"), primary_key=True),
    Column("secret", LargeBinary, nullable=False),
    Column("old_secret", LargeBinary, nullable=True),
    _time("old_secret_until", null=True),
    _time("created_at"),
    _time("shown_at", null=True),
)

webhook_lanes = Table(  # a receiver: a webhook, or the origin of URLs that an account's jobs name
    "webhook_lanes",
    metadata,
    Column("receiver", TEXT, primary_key=True),
    _text("account_id"),
    Column("webhook_id", TEXT, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=True),
    _time("due_at", null=True),  # while it is held: when the hold ends unless it is renewed
    _text("holder", null=True),
    _count("failures"),
    _real("paused_until"),
    _time("used_at"),
)
_LANE_DUE = text("due_at IS NOT NULL AND failures < 3")
Index("ix_webhook_lanes_due", webhook_lanes.c.due_at, sqlite_where=_LANE_DUE, postgresql_where=_LANE_DUE)
_LANE_FAILING = text("due_at IS NOT NULL AND failures >= 3")
Index("ix_webhook_lanes_failing", webhook_lanes.c.due_at,
      sqlite_where=_LANE_FAILING, postgresql_where=_LANE_FAILING)  # fmt: skip
_LANE_HELD = text("holder IS NOT NULL")
Index("ix_webhook_lanes_held", webhook_lanes.c.holder, sqlite_where=_LANE_HELD, postgresql_where=_LANE_HELD)
Index(None, webhook_lanes.c.webhook_id)
Index(None, webhook_lanes.c.used_at)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", TEXT, primary_key=True),
    Column("account_id", TEXT, ForeignKey("accounts.id"), nullable=False),
    Column("webhook_id", TEXT, ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=True),
    _text("receiver"),
    _text("url", null=True),  # of the job; a webhook's is the webhook's
    _text("job_id", null=True),
    _text("type"),
    Column("seq", Integer, nullable=True),
    _time("event_at"),
    _text("state"),
    _count("attempts"),
    _time("next_at"),
    _time("expires_at"),
    _time("created_at"),
    _time("ended_at", null=True),
    Column("last_status", Integer, nullable=True),
    _text("last_error", null=True),
    _text("log"),
    _count("replayed_attempts"),  # how many there were when it was last asked for again
    UniqueConstraint("job_id", "seq", "receiver"),
)
_UNDELIVERED = text("state = 'waiting'")
Index("ix_webhook_deliveries_waiting", webhook_deliveries.c.receiver, webhook_deliveries.c.next_at,
      sqlite_where=_UNDELIVERED, postgresql_where=_UNDELIVERED)  # fmt: skip
Index("ix_webhook_deliveries_ending", webhook_deliveries.c.expires_at,
      sqlite_where=_UNDELIVERED, postgresql_where=_UNDELIVERED)  # fmt: skip
Index("ix_webhook_deliveries_undelivered", webhook_deliveries.c.account_id, webhook_deliveries.c.id,
      sqlite_where=_UNDELIVERED, postgresql_where=_UNDELIVERED)  # fmt: skip
_UNDELIVERABLE = text("state = 'failed'")
Index("ix_webhook_deliveries_failed", webhook_deliveries.c.account_id, webhook_deliveries.c.id,
      sqlite_where=_UNDELIVERABLE, postgresql_where=_UNDELIVERABLE)  # fmt: skip
Index("ix_webhook_deliveries_account_id", webhook_deliveries.c.account_id, webhook_deliveries.c.id)
Index("ix_webhook_deliveries_webhook_id", webhook_deliveries.c.webhook_id, webhook_deliveries.c.id)
Index(None, webhook_deliveries.c.created_at)

backends = Table(
    "backends",
    metadata,
    Column("id", TEXT, primary_key=True),
    _text("url"),
    _text("name"),
    _text("node_id"),
    _text("state"),
    _text("worker_id", null=True),
    _count("draining"),
    _count("manual"),
    _text("version", null=True),
    _text("devices", null=True),
    _text("memory", null=True),
    _text("inventory_hash", null=True),
    _text("breaker", null=True),
    _text("residency", null=True),
    _text("resident_model", null=True),
    _real("start_tag"),
    _time("added_at"),
    _time("seen_at", null=True),
    _time("removed_at", null=True),
)

inventories = Table(
    "inventories",
    metadata,
    Column("hash", TEXT, primary_key=True),
    Column("document", LargeBinary, nullable=False),
    _time("created_at"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", TEXT, primary_key=True),
    _text("node_id"),
    _count("counter"),
    _real("start_tag"),  # of the version before: nobody reads it
    _time("started_at"),
    Column("scope", TEXT),
)

timings = Table(
    "timings",
    metadata,
    Column("key", TEXT, primary_key=True),
    _count("runs"),
    _real("seconds"),
    _time("updated_at"),
)
Index(None, timings.c.updated_at)

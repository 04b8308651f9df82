"""On PostgreSQL, the common group of submissions is decided and written by one call.

The function is new, and only processes of this version call it. One that needs other arguments, or does something
else, gets another name and is created beside this one: processes of two versions run at once.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ENTER_JOBS = """
CREATE FUNCTION enter_jobs_1(
  -- a value for each job, in order of arrival; NULL for a list without values, but not for the first two
  _ids text[], _accounts text[], _needs text[], _keys text[], _prints text[], _queued_at float8[], _costs float8[],
  _images bigint[], _timing_keys text[], _priorities bigint[], _max_attempts bigint[], _deadlines float8[],
  _retentions float8[], _params text[], _labels text[], _outputs text[], _graphs bytea[], _webhooks text[],
  _workflows text[], _versions int[], _traces text[],
  -- limits
  _waiting bigint[], _per_day bigint[],
  -- for all of them: when they came, on which day, and since when a key is remembered
  _now float8, _day text, _keys_since float8,
  -- where lanes enter: jobs in a window, cost of one while none was measured, windows behind V
  _window_jobs float8, _default_cost float8, _entry float8
) RETURNS TABLE (
  -- each account's lane as it was, and what backends have still to do
  account_id text, weight float8, cap bigint, running bigint, queued bigint, queued_cost float8, entered bigint,
  entered_cost float8, vtime float8, open_seconds float8
) LANGUAGE plpgsql VOLATILE
  -- planned once a connection, also while the tables are small: by their indexes, however large they get
  SET plan_cache_mode = force_generic_plan SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
  touched bigint;
BEGIN
  -- Locks are taken in the order of all who write: keys, lanes, then what belongs to the lanes. What is unusual
  -- raises UG001, which is caught at the end: all is undone, and no row is given.

  INSERT INTO idempotency_keys (account_id, key, fingerprint, job_id, created_at)
  SELECT r.account, r.key, r.print, r.id, _now
  FROM unnest(_accounts, _keys, _prints, _ids) AS r(account, key, print, id)
  WHERE r.key IS NOT NULL ORDER BY r.account COLLATE "C", r.key COLLATE "C"
  ON CONFLICT (account_id, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, job_id = excluded.job_id, created_at = excluded.created_at
    WHERE idempotency_keys.created_at <= _keys_since;
  GET DIAGNOSTICS touched = ROW_COUNT;
  IF touched < (SELECT count(r.key) FROM unnest(_keys) AS r(key)) THEN
    RAISE SQLSTATE 'UG001';  -- a key was used
  END IF;

  IF (SELECT count(*) FROM requirements q WHERE q.id = ANY (_needs))
     < (SELECT count(DISTINCT r.need) FROM unnest(_needs) AS r(need)) THEN
    RAISE SQLSTATE 'UG001';  -- a need was forgotten
  END IF;

  PERFORM 1 FROM lanes l WHERE l.account_id = ANY (_accounts) ORDER BY l.account_id FOR NO KEY UPDATE;
  GET DIAGNOSTICS touched = ROW_COUNT;
  IF touched < (SELECT count(DISTINCT r.account) FROM unnest(_accounts) AS r(account)) THEN
    RAISE SQLSTATE 'UG001';  -- an account without a lane
  END IF;

  -- From here on nobody else changes these lanes, and each statement sees what they are.

  IF _waiting IS NOT NULL THEN
    IF EXISTS (
      SELECT FROM unnest(_accounts, _waiting) AS r(account, most) JOIN lanes l ON l.account_id = r.account
      GROUP BY l.account_id, l.queued HAVING l.queued + count(*) > min(r.most)
    ) THEN
      RAISE SQLSTATE 'UG001';  -- more would wait than may
    END IF;
  END IF;

  INSERT INTO usage_days (account_id, day, reserved)
  SELECT r.account, _day, sum(r.images) FROM unnest(_accounts, _images) AS r(account, images)
  GROUP BY r.account ORDER BY r.account COLLATE "C"
  ON CONFLICT (account_id, day) DO UPDATE SET reserved = usage_days.reserved + excluded.reserved;
  IF _per_day IS NOT NULL THEN
    IF EXISTS (
      SELECT FROM unnest(_accounts, _per_day) AS r(account, most)
        JOIN usage_days u ON u.account_id = r.account AND u.day = _day
      GROUP BY u.account_id, u.reserved, u.charged HAVING u.reserved + u.charged > min(r.most)
    ) THEN
      RAISE SQLSTATE 'UG001';  -- more images than the day allows
    END IF;
  END IF;

  RETURN QUERY
  SELECT l.account_id, l.weight, l.cap, l.running, l.queued, l.queued_cost, l.entered, l.entered_cost, l.vtime, (
    SELECT coalesce(sum(CASE
      WHEN j.state = 'dispatched' THEN j.cost
      WHEN j.state = 'executing' AND j.cost > _now - j.started_at THEN j.cost - (_now - j.started_at)
      ELSE 0 END), 0)
    FROM jobs j WHERE j.state IN ('dispatched', 'executing', 'storing'))
  FROM lanes l WHERE l.account_id = ANY (_accounts);

  INSERT INTO jobs (id, account_id, state, seq, max_attempts, priority, requirement_id, cost, ordinal, ordinal_cost,
    images, timing_key, params, labels, output, graph, fingerprint, webhook_url, queued_at, deadline_at, retention,
    workflow_id, workflow_version, trace_context)
  SELECT r.id, r.account, 'ready', 1, r.max_attempts, r.priority, r.need, r.cost,
    l.entered + row_number() OVER lane,
    l.entered_cost + coalesce(sum(r.cost) OVER (lane ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) + r.cost,
    r.images, r.timing_key, r.params, coalesce(r.labels, '{}'), r.output, r.graph, r.print, r.webhook, r.at,
    r.deadline, r.retention, r.workflow, r.version, r.trace
  FROM unnest(_ids, _accounts, _max_attempts, _priorities, _needs, _costs, _images, _timing_keys, _params, _labels,
      _outputs, _graphs, _prints, _webhooks, _queued_at, _deadlines, _retentions, _workflows, _versions,
      _traces)
    WITH ORDINALITY AS r(id, account, max_attempts, priority, need, cost, images, timing_key, params, labels,
      output, graph, print, webhook, at, deadline, retention, workflow, version, trace, place)
    JOIN lanes l ON l.account_id = r.account
  WINDOW lane AS (PARTITION BY r.account ORDER BY r.place);

  UPDATE lanes l SET
    vtime = CASE
      WHEN l.queued > 0 AND a.entry > l.vtime AND EXISTS (
        SELECT FROM lane_needs n JOIN capabilities c ON c.requirement_id = n.requirement_id
          JOIN backends b ON b.inventory_hash = c.inventory_hash
        WHERE n.account_id = l.account_id AND n.queued > 0 AND b.state = 'online' AND b.removed_at IS NULL)
      THEN l.vtime ELSE greatest(l.vtime, a.entry) END,
    queued = l.queued + a.jobs, queued_cost = l.queued_cost + a.cost,
    entered = l.entered + a.jobs, entered_cost = l.entered_cost + a.cost
  FROM (
    SELECT r.account, count(*) AS jobs, sum(r.cost ORDER BY r.place) AS cost,
      max(v.tag) - _entry * (_window_jobs * coalesce(
        (SELECT greatest(t.seconds, 0.001) FROM timings t WHERE t.key = 'all'), _default_cost)) AS entry
    FROM unnest(_accounts, _needs, _costs) WITH ORDINALITY AS r(account, need, cost, place)
      LEFT JOIN (
        SELECT c.requirement_id AS need, max(b.start_tag) AS tag
        FROM capabilities c JOIN backends b ON b.inventory_hash = c.inventory_hash
        WHERE c.requirement_id = ANY (_needs) AND b.state = 'online' AND b.removed_at IS NULL
        GROUP BY c.requirement_id
      ) AS v ON v.need = r.need
    GROUP BY r.account
  ) AS a WHERE l.account_id = a.account;

  INSERT INTO lane_needs (account_id, requirement_id, queued)
  SELECT r.account, r.need, count(*) FROM unnest(_accounts, _needs) AS r(account, need)
  GROUP BY r.account, r.need ORDER BY r.account COLLATE "C", r.need COLLATE "C"
  ON CONFLICT (account_id, requirement_id) DO UPDATE SET queued = lane_needs.queued + excluded.queued;

  IF _labels IS NOT NULL THEN
    INSERT INTO job_labels (job_id, account_id, key, value)
    SELECT r.id, r.account, one.key, one.value
    FROM unnest(_ids, _accounts, _labels) AS r(id, account, labels), jsonb_each_text(r.labels::jsonb) AS one;
  END IF;

  INSERT INTO events (job_id, seq, type, status, at, data)
  SELECT r.id, 1, 'queued', 'queued', r.at, '{}' FROM unnest(_ids, _queued_at) AS r(id, at);

  -- no webhook is told of it, so there is nothing left to be handled
  INSERT INTO outbox (job_id, account_id, seq, type, at, handled_at)
  SELECT r.id, r.account, 1, 'queued', r.at, r.at FROM unnest(_ids, _accounts, _queued_at) AS r(id, account, at);

  INSERT INTO ledger (job_id, account_id, day, reserved)
  SELECT r.id, r.account, _day, r.images FROM unnest(_ids, _accounts, _images) AS r(id, account, images);
EXCEPTION
  WHEN SQLSTATE 'UG001' THEN  -- nothing in the server's log: it is no error
    RETURN;
END
$$
"""


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.get_bind().exec_driver_sql(ENTER_JOBS)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION enter_jobs_1")

"""On PostgreSQL the common claim, start and end of a job are one call each.

The functions are new, and only processes of this version call them. One that needs other arguments, or does something
else, gets another name and is created beside these: processes of two versions run at once.
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_PLANNED = "SET plan_cache_mode = force_generic_plan SET enable_seqscan = off"
"""Once a connection, also while the tables are small: by their indexes, however large they get."""

CLAIM_JOB = f"""
CREATE FUNCTION claim_job_1(
  -- who claims
  _backend text, _worker text, _client text, _prompt text, _now float8,
  -- what the choice rests on: what the backend remembers, or nothing yet, and between which others the lane stands
  _before text, _nothing text, _lowest float8, _highest float8,
  -- what was chosen, what the lane is charged for it, and what the backend remembers of it
  _account text, _need text, _job text, _priority bigint, _cost float8, _charge float8, _residency text, _model text,
  -- whether the next job of the need will do if that one is gone
  _or_next boolean,
  -- the longest wait for a lock
  _patience text
) RETURNS TABLE (
  id text, attempt bigint, graph bytea, params text, output text, timing_key text, images bigint, inputs text,
  queued_at float8, trace_context text
) LANGUAGE plpgsql VOLATILE {_PLANNED}
AS $$
DECLARE
  tag float8;
  chosen text;
BEGIN
  -- Who finds that something has changed which the choice rests on goes step by step.
  PERFORM set_config('lock_timeout', _patience, true);
  PERFORM 1 FROM backends b
  WHERE b.id = _backend AND b.worker_id = _worker AND coalesce(b.residency, _nothing) = _before FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT l.vtime INTO tag FROM lanes l
  WHERE l.account_id = _account AND l.vtime BETWEEN _lowest AND _highest AND l.queued > 0 AND l.running < l.cap
  FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;

  IF _or_next THEN
    SELECT j.id INTO chosen FROM jobs j
    WHERE j.account_id = _account AND j.requirement_id = _need AND j.state = 'ready'
    ORDER BY j.priority DESC, j.id LIMIT 1;
  ELSE
    chosen := _job;
  END IF;
  UPDATE jobs j SET state = 'dispatched', attempt = j.attempt + 1, backend_id = _backend
  WHERE j.id = chosen AND j.state = 'ready'
    AND (j.id = _job OR (j.priority = _priority AND j.cost = _cost AND j.out_of_memory = 0))
  RETURNING j.id, j.attempt, j.graph, j.params, j.output, j.timing_key, j.images, j.inputs, j.queued_at,
    j.trace_context INTO id, attempt, graph, params, output, timing_key, images, inputs, queued_at, trace_context;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  INSERT INTO attempts (prompt_id, job_id, number, backend_id, worker_id, client_id, dispatched_at)
  VALUES (_prompt, chosen, attempt, _backend, _worker, _client, _now);
  UPDATE lane_needs n SET queued = n.queued - 1
  WHERE n.account_id = _account AND n.requirement_id = _need AND n.queued > 1;
  IF NOT FOUND THEN
    DELETE FROM lane_needs n WHERE n.account_id = _account AND n.requirement_id = _need AND n.queued = 1;
  END IF;
  UPDATE lanes l SET vtime = tag + _charge, running = l.running + 1, queued = l.queued - 1,
    queued_cost = CASE WHEN l.queued = 1 THEN 0 ELSE l.queued_cost - _cost END, served = 1
  WHERE l.account_id = _account;
  UPDATE backends b SET residency = _residency, resident_model = _model,
    start_tag = CASE WHEN b.start_tag < tag THEN tag ELSE b.start_tag END
  WHERE b.id = _backend;
  RETURN NEXT;
END
$$
"""

START_JOB = f"""
CREATE FUNCTION start_job_1(_job text, _attempt bigint, _worker text, _now float8, _data text)
RETURNS TABLE (account_id text, seq bigint, queued_at float8)
LANGUAGE plpgsql VOLATILE {_PLANNED}
AS $$
BEGIN
  PERFORM 1 FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
  WHERE j.id = _job AND j.attempt = _attempt AND a.worker_id = _worker AND j.state = 'dispatched'
  FOR NO KEY UPDATE OF j, a;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  UPDATE jobs j SET state = 'executing', seq = j.seq + 1, executed = j.executed + 1,
    started_at = coalesce(j.started_at, _now)
  WHERE j.id = _job RETURNING j.account_id, j.seq, j.queued_at INTO account_id, seq, queued_at;
  UPDATE attempts a SET executing_at = _now WHERE a.job_id = _job AND a.number = _attempt;
  INSERT INTO events (job_id, seq, type, status, at, data)
  VALUES (_job, seq, 'running', 'running', _now, _data);
  INSERT INTO outbox (job_id, account_id, seq, type, at) VALUES (_job, account_id, seq, 'running', _now);
  RETURN NEXT;
END
$$
"""

FINISH_JOB = f"""
CREATE FUNCTION finish_job_1(
  -- the attempt that speaks, and how it ended
  _job text, _attempt bigint, _worker text, _now float8, _state text, _status text, _error text, _results text,
  _cache text, _produced bigint, _seconds float8, _expires float8, _outcome text, _data text,
  -- a value for each artifact
  _indices int[], _nodes text[], _kinds text[], _media_types text[], _widths int[], _heights int[], _bytes bigint[],
  _hashes text[], _keys text[], _seeds text[], _metas text[], _told text[],
  -- durations to learn from, sorted by key
  _measured text[], _durations float8[],
  -- where a lane enters that was at its cap: jobs in a window, cost of one while none was measured, windows behind V,
  -- and the weight of the newest duration
  _window_jobs float8, _default_cost float8, _entry float8, _newest float8
) RETURNS SETOF jobs LANGUAGE plpgsql VOLATILE {_PLANNED}
AS $$
DECLARE
  held record;
  ended jobs;
  freed float8;
  correction float8 := 0;
BEGIN
  SELECT j.account_id, j.state, j.seq, j.cost, j.cancel_requested_at, j.deadline_at, j.retention,
    l.weight, l.cap, l.running, l.queued, l.vtime, g.day, g.reserved, g.settled_at INTO held
  FROM jobs j JOIN lanes l ON l.account_id = j.account_id LEFT JOIN ledger g ON g.job_id = j.id
    JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
  WHERE j.id = _job AND j.attempt = _attempt AND a.worker_id = _worker
    AND j.state IN ('dispatched', 'executing', 'storing')
  FOR NO KEY UPDATE OF l, j, a;
  IF NOT FOUND OR held.cancel_requested_at IS NOT NULL
     OR (held.deadline_at <= _now AND _state = 'succeeded') THEN
    RETURN;  -- replaced, or overruled: step by step
  END IF;

  -- From here on nobody else changes this job and its lane, and each statement sees what they are.

  freed := held.vtime;
  IF held.state <> 'storing' AND held.queued > 0 AND held.running >= held.cap THEN
    SELECT greatest(held.vtime, max(b.start_tag) - _entry * (_window_jobs * coalesce(
        (SELECT greatest(t.seconds, 0.001) FROM timings t WHERE t.key = 'all'), _default_cost))) INTO freed
    FROM lane_needs n JOIN capabilities c ON c.requirement_id = n.requirement_id
      JOIN backends b ON b.inventory_hash = c.inventory_hash
    WHERE n.account_id = held.account_id AND n.queued > 0 AND b.state = 'online' AND b.removed_at IS NULL;
  END IF;
  IF _seconds IS NOT NULL THEN
    correction := _seconds - held.cost;
  ELSIF held.state = 'dispatched' THEN
    correction := -held.cost;
  END IF;

  UPDATE jobs j SET state = _state, seq = held.seq + cardinality(_indices) + 1, finished_at = _now, error = _error,
    results = _results, cache = _cache, generation_time = _seconds,
    expires_at = CASE WHEN held.retention IS NULL OR _expires IS NULL THEN _expires ELSE _now + held.retention END
  WHERE j.id = _job RETURNING j.* INTO ended;
  UPDATE lanes l SET vtime = freed + correction / held.weight,
    running = l.running - CASE WHEN held.state = 'storing' THEN 0 ELSE 1 END,
    queued_cost = CASE WHEN l.queued = 0 THEN 0 ELSE l.queued_cost END
  WHERE l.account_id = held.account_id;
  UPDATE attempts a SET outcome = _outcome, closed_at = _now
  WHERE a.job_id = _job AND a.number = _attempt AND a.closed_at IS NULL;
  IF cardinality(_indices) > 0 THEN
    INSERT INTO artifacts (job_id, idx, attempt, node_id, kind, media_type, width, height, bytes, sha256, key, seed,
      meta)
    SELECT _job, r.idx, _attempt, r.node, r.kind, r.media_type, r.width, r.height, r.bytes, r.hash, r.key, r.seed,
      r.meta
    FROM unnest(_indices, _nodes, _kinds, _media_types, _widths, _heights, _bytes, _hashes, _keys, _seeds, _metas)
      AS r(idx, node, kind, media_type, width, height, bytes, hash, key, seed, meta);
    INSERT INTO events (job_id, seq, type, status, at, data)
    SELECT _job, held.seq + r.place, 'artifact', 'running', _now, r.data
    FROM unnest(_told) WITH ORDINALITY AS r(data, place);
  END IF;
  INSERT INTO events (job_id, seq, type, status, at, data) VALUES (_job, ended.seq, 'done', _status, _now, _data);
  INSERT INTO outbox (job_id, account_id, seq, type, at) VALUES (_job, held.account_id, ended.seq, 'done', _now);
  IF held.day IS NOT NULL AND held.settled_at IS NULL THEN
    UPDATE ledger g SET charged = _produced, gpu_seconds = coalesce(_seconds, 0), settled_at = _now
    WHERE g.job_id = _job;
    UPDATE usage_days u SET reserved = u.reserved - held.reserved, charged = u.charged + _produced,
      gpu_seconds = u.gpu_seconds + coalesce(_seconds, 0)
    WHERE u.account_id = held.account_id AND u.day = held.day;
  END IF;
  IF cardinality(_measured) > 0 THEN
    INSERT INTO timings (key, runs, seconds, updated_at)
    SELECT r.key, 1, r.seconds, _now FROM unnest(_measured, _durations) AS r(key, seconds)
    ON CONFLICT (key) DO UPDATE SET runs = timings.runs + 1, updated_at = excluded.updated_at,
      seconds = timings.seconds + (excluded.seconds - timings.seconds)
        * CASE WHEN timings.runs < 6 THEN 1.0 / (timings.runs + 1) ELSE _newest END;
  END IF;
  RETURN NEXT ended;
END
$$
"""


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for function in (CLAIM_JOB, START_JOB, FINISH_JOB):
            op.get_bind().exec_driver_sql(function)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for name in ("claim_job_1", "start_job_1", "finish_job_1"):
            op.execute(f"DROP FUNCTION {name}")

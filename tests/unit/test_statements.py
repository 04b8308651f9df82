"""Named values as numbered ones, and one INSERT for many rows."""

import pytest

from comfy_api_service.db.statements import for_many, gathered, joined, numbered, repeated, takes_many

INSERT = "INSERT INTO t (a, b, c) VALUES (:one, 1, :two)"


def test_a_name_is_one_place_however_often_it_stands() -> None:
    statement = numbered("UPDATE t SET a = :now, b = :sha256 WHERE c < :now AND d = 'x'")
    assert statement.sql == "UPDATE t SET a = $1, b = $2 WHERE c < $1 AND d = 'x'"
    assert statement.values({"sha256": "s", "now": 1, "unused": 2}) == [1, "s"]


def test_casts_are_left_alone() -> None:
    assert numbered("SELECT '1'::int, CAST(:a AS jsonb)").sql == "SELECT '1'::int, CAST($1 AS jsonb)"


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(KeyError):
        numbered("SELECT :a").values({})


def test_many_rows_are_one_insert_from_lists() -> None:
    statement = for_many(INSERT, ["text", "int8"])
    assert statement.sql == (
        "INSERT INTO t (a, b, c) SELECT r._one, 1, r._two FROM unnest($1::text[], $2::int8[]) AS r(_one, _two)"
    )
    assert statement.columns([{"one": "x", "two": 1}, {"one": "y", "two": 2}]) == [["x", "y"], [1, 2]]


def test_what_is_done_on_a_conflict_stays() -> None:
    tail = " ON CONFLICT (a) DO UPDATE SET b = t.b + excluded.b"
    assert takes_many(INSERT + tail)
    assert for_many(INSERT + tail, ["text", "int8"]).sql.endswith(tail)


def test_many_rows_are_one_update_from_lists() -> None:
    sql = "UPDATE t SET a = a + :a, b = CASE WHEN a + :a = 0 THEN 0 ELSE :b END WHERE c = :c AND d"
    assert takes_many(sql)
    assert for_many(sql, ["int8", "float8", "text"]).sql == (
        "UPDATE t SET a = a + r._a, b = CASE WHEN a + r._a = 0 THEN 0 ELSE r._b END "
        "FROM unnest($1::int8[], $2::float8[], $3::text[]) AS r(_a, _b, _c) WHERE c = r._c AND d"
    )


def test_several_statements_are_one_with_their_places_numbered_on() -> None:
    parts = [numbered("UPDATE t SET a = :a WHERE b = :b"), numbered("DELETE FROM t WHERE a = :a")]
    assert joined(parts) == (
        "WITH s0 AS (UPDATE t SET a = $1 WHERE b = $2), s1 AS (DELETE FROM t WHERE a = $3) SELECT 1"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE t SET a = :a",
        "UPDATE t SET a = :a WHERE b = :b RETURNING c",
        "INSERT INTO t SELECT :a",
        INSERT + " ON CONFLICT (a) DO UPDATE SET b = :b",
        INSERT + " RETURNING a",
    ],
)
def test_other_statements_are_run_once_a_row(sql: str) -> None:
    assert not takes_many(sql)


def test_rows_are_repeated_in_one_insert() -> None:
    sql = "INSERT INTO t (a, b, c) VALUES (:x, CAST(:y AS text), :x) ON CONFLICT (a) DO UPDATE SET b = excluded.b"
    text, names = repeated(sql, 2) or ("", ())
    assert names == ("x", "y", "x")
    assert text == (
        "INSERT INTO t (a, b, c) VALUES (?, CAST(? AS text), ?), (?, CAST(? AS text), ?) "
        "ON CONFLICT (a) DO UPDATE SET b = excluded.b"
    )


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE t SET a = :a WHERE b = :b",
        "INSERT INTO t (a) VALUES (:a) RETURNING a",
        "INSERT INTO t (a) VALUES (:a) ON CONFLICT (a) DO UPDATE SET b = :b",
        "INSERT INTO t (a) SELECT :a",
    ],
)
def test_what_is_not_repeated(sql: str) -> None:
    assert repeated(sql, 2) is None


def test_queries_are_gathered_into_one_row() -> None:
    text = gathered(
        [numbered("SELECT a FROM t WHERE b = :b"), numbered("SELECT c FROM u WHERE d = :d AND e = :d")]
    )
    assert text == (
        "SELECT (SELECT coalesce(jsonb_agg(to_jsonb(q)), '[]'::jsonb) FROM (SELECT a FROM t WHERE b = $1) AS q), "
        "(SELECT coalesce(jsonb_agg(to_jsonb(q)), '[]'::jsonb) FROM (SELECT c FROM u WHERE d = $2 AND e = $2) AS q)"
    )

"""The PostgreSQL server that `DATABASE_URL` names. Nothing is changed there."""

from typing import TYPE_CHECKING

from comfy_api_service.cli.doctor.finding import Finding, fault, ok, warning
from comfy_api_service.db.migrate import HEAD, KNOWN, revision_on
from comfy_api_service.db.problems import DatabaseUnusable

if TYPE_CHECKING:
    import asyncpg


async def database(url: str, pool_size: int) -> Finding:
    """Answers, lets the user in, has the database, and is of a version that this one knows."""
    import asyncpg  # noqa: PLC0415 - slow to load

    from comfy_api_service.db.connecting import connect, problem_of  # noqa: PLC0415

    try:
        connection = await connect(url, application="comfy-api doctor")
        try:
            return await _judged(connection, pool_size)
        finally:
            await connection.close()
    except DatabaseUnusable as error:
        return fault("database", error.problem.message, error.problem.remedy)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        problem = problem_of(error)
        return fault("database", problem.message, problem.remedy)


async def _judged(connection: "asyncpg.Connection[asyncpg.Record]", pool_size: int) -> Finding:
    version = ".".join(str(part) for part in connection.get_server_version()[:2])
    revision = await revision_on(connection)
    if revision is None:
        if not await connection.fetchval("SELECT has_schema_privilege(current_schema(), 'CREATE')"):
            return fault(
                "database",
                "the user may not make tables",
                "Make the user the owner of the database (`ALTER DATABASE NAME OWNER TO USER`).",
            )
        return ok("database", f"PostgreSQL {version}, empty; its tables are made at first start")
    if revision not in KNOWN:
        return fault(
            "database",
            f"written by a newer version (schema {revision}; this version knows up to {HEAD})",
            "Update this program to the version that wrote it, or give it a database of its own.",
        )
    most = int(await connection.fetchval("SHOW max_connections"))
    if pool_size >= most:
        return warning(
            "database",
            f"PostgreSQL {version} allows {most} connections, DATABASE_POOL_SIZE is {pool_size}",
            "Raise max_connections there: each process of the service needs as many as DATABASE_POOL_SIZE says.",
        )
    if revision != HEAD:
        return ok("database", f"PostgreSQL {version}, schema {revision}, brought to {HEAD} at the next start")
    return ok("database", f"PostgreSQL {version}, schema {revision}")

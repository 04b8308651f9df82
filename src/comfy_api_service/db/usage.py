"""The sums of the quota ledger, a row an account and day."""

from dataclasses import dataclass

from comfy_api_service.db.base import Reader


@dataclass(frozen=True, slots=True)
class Day:
    """`images` were produced and charged, `reserved` are of jobs that have not ended."""

    day: str
    images: int
    reserved: int
    gpu_seconds: float


@dataclass(frozen=True, slots=True)
class Line:
    """A day of an account, for billing."""

    day: str
    account_id: str
    name: str
    tier: str
    images: int
    gpu_seconds: float


async def days_of(tx: Reader, account_id: str, first: str, last: str) -> list[Day]:
    """Newest first; days without use have no row."""
    rows = await tx.all(
        """SELECT day, charged, reserved, gpu_seconds FROM usage_days
           WHERE account_id = :account AND day >= :first AND day <= :last ORDER BY day DESC""",
        {"account": account_id, "first": first, "last": last},
    )
    return [Day(row["day"], row["charged"], row["reserved"], row["gpu_seconds"]) for row in rows]


async def open_jobs(tx: Reader, account_id: str) -> tuple[int, int]:
    """How many jobs backends have, and how many wait."""
    row = await tx.one(
        "SELECT running, queued FROM lanes WHERE account_id = :account", {"account": account_id}
    )
    return (0, 0) if row is None else (row["running"], row["queued"])


async def lines(tx: Reader, first: str, last: str, *, after: tuple[str, str], limit: int) -> list[Line]:
    """Of all accounts, by day and account; `after`: the last line of the page before."""
    rows = await tx.all(
        """SELECT u.day, u.account_id, a.name, a.tier, u.charged, u.gpu_seconds
           FROM usage_days u JOIN accounts a ON a.id = u.account_id
           WHERE u.day >= :first AND u.day <= :last
             AND (u.day > :day OR (u.day = :day AND u.account_id > :account))
           ORDER BY u.day, u.account_id LIMIT :limit""",
        {"first": first, "last": last, "day": after[0], "account": after[1], "limit": limit},
    )
    return [
        Line(row["day"], row["account_id"], row["name"], row["tier"], row["charged"], row["gpu_seconds"])
        for row in rows
    ]

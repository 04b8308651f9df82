"""Accounts and their lanes."""

from collections.abc import Mapping
from typing import Any

from comfy_api_service.db import lanes
from comfy_api_service.db.base import Reader, Row, Tx, dumps, loads
from comfy_api_service.domain.account import Account, Role
from comfy_api_service.domain.errors import Conflict
from comfy_api_service.domain.tiers import Limits
from comfy_api_service.domain.users import User

COLUMNS = """a.id, a.name, a.email, a.username, a.tier, a.role, a.created_at, a.disabled_at, a.overrides"""


def user_from(row: Row) -> User:
    """From `COLUMNS`."""
    return User(
        id=row["id"],
        name=row["name"],
        email=row["email"],
        username=row["username"],
        tier=row["tier"],
        role=Role(row["role"]),
        created_at=row["created_at"],
        disabled_at=row["disabled_at"],
        overrides=loads(row["overrides"]) or {},
    )


async def ensure(tx: Tx, account: Account, now: float) -> None:
    """Write an account, with its lane, unless it is there."""
    await tx.run(
        """INSERT INTO accounts (id, name, tier, role, created_at) VALUES (:id, :name, :tier, :role, :now)
           ON CONFLICT (id) DO NOTHING""",
        {"id": account.id, "name": account.name, "tier": account.tier, "role": account.role, "now": now},
    )
    await _lane(tx, account.id, account.limits)


async def create(tx: Tx, user: User, limits: Limits, password_hash: str | None) -> None:
    """Write a person's account, with its lane. Raises `Conflict` if name or address are somebody's."""
    written = await tx.run(
        """INSERT INTO accounts (id, name, email, username, tier, role, created_at, password_hash, overrides)
           VALUES (:id, :name, :email, :username, :tier, :role, :now, :password, :overrides)
           ON CONFLICT DO NOTHING""",
        {
            "id": user.id,
            "name": user.name,
            "email": user.email,
            "username": user.username,
            "tier": user.tier,
            "role": user.role,
            "now": user.created_at,
            "password": password_hash,
            "overrides": _overrides(user),
        },
    )
    if not written:
        raise Conflict("The e-mail address or the username belongs to an account.")
    await _lane(tx, user.id, limits)


async def _lane(tx: Tx, account_id: str, limits: Limits) -> None:
    await tx.run(
        """INSERT INTO lanes (account_id, weight, cap) VALUES (:id, :weight, :cap)
           ON CONFLICT (account_id) DO NOTHING""",
        {"id": account_id, "weight": limits.weight, "cap": cap_of(limits)},
    )


def cap_of(limits: Limits) -> int:
    return lanes.UNCAPPED if limits.running is None else limits.running


async def get(tx: Reader, account_id: str) -> User | None:
    row = await tx.one(f"SELECT {COLUMNS} FROM accounts a WHERE a.id = :id", {"id": account_id})
    return None if row is None else user_from(row)


async def by_name(tx: Reader, name: str) -> tuple[User, str | None] | None:
    """The account of an id, an e-mail address or a username, in small letters, and its password's hash."""
    row = await tx.one(
        f"""SELECT {COLUMNS}, a.password_hash FROM accounts a
            WHERE a.email = :name OR a.username = :name OR a.id = :name""",
        {"name": name},
    )
    return None if row is None else (user_from(row), row["password_hash"])


async def page(tx: Reader, *, after: str | None, limit: int, search: str | None = None) -> list[User]:
    """In the order of their ids; `search` is a part of name, address or username."""
    rows = await tx.all(
        f"""SELECT {COLUMNS} FROM accounts a WHERE a.id > :after
            AND (:search = '' OR lower(a.name) LIKE :search ESCAPE '!' OR a.email LIKE :search ESCAPE '!'
              OR a.username LIKE :search ESCAPE '!')
            ORDER BY a.id LIMIT :limit""",
        {
            "after": after or "",
            "limit": limit,
            "search": "" if not search else f"%{_literal(search.lower())}%",
        },
    )
    return [user_from(row) for row in rows]


def _literal(text: str) -> str:
    return text.replace("!", "!!").replace("%", "!%").replace("_", "!_")


async def hold(tx: Tx, account_id: str) -> User | None:
    """Locked until the transaction ends."""
    row = await tx.one(
        f"SELECT {COLUMNS} FROM accounts a WHERE a.id = :id" + tx.dialect.locking("a"), {"id": account_id}
    )
    return None if row is None else user_from(row)


async def store(tx: Tx, user: User) -> None:
    """What may change of an account that is held."""
    await tx.run(
        """UPDATE accounts SET name = :name, tier = :tier, role = :role, disabled_at = :disabled,
             overrides = :overrides WHERE id = :id""",
        {
            "id": user.id,
            "name": user.name,
            "tier": user.tier,
            "role": user.role,
            "disabled": user.disabled_at,
            "overrides": _overrides(user),
        },
    )


async def set_lane(tx: Tx, account_id: str, limits: Limits) -> None:
    """Of an account that is held."""
    await lanes.set_limits(tx, account_id, cap=cap_of(limits), weight=limits.weight)


async def password_of(tx: Reader, account_id: str) -> str | None:
    """Its hash."""
    row = await tx.one("SELECT password_hash FROM accounts WHERE id = :id", {"id": account_id})
    return None if row is None or row["password_hash"] is None else str(row["password_hash"])


async def set_password(tx: Tx, account_id: str, password_hash: str) -> None:
    await tx.run(
        "UPDATE accounts SET password_hash = :hash WHERE id = :id", {"id": account_id, "hash": password_hash}
    )


async def of_people(tx: Reader) -> int:
    """How many there are besides the service's own."""
    row = await tx.one("SELECT count(*) AS n FROM accounts WHERE username IS NOT NULL")
    return int(row["n"]) if row else 0


async def administrators(tx: Reader) -> int:
    """How many may still call."""
    row = await tx.one(
        "SELECT count(*) AS n FROM accounts WHERE role = 'admin' AND disabled_at IS NULL AND username IS NOT NULL"
    )
    return int(row["n"]) if row else 0


async def lanes_of_people(tx: Reader) -> list[tuple[User, int, float]]:
    """Every account of a person with its lane's cap and weight."""
    rows = await tx.all(
        f"""SELECT {COLUMNS}, l.cap, l.weight FROM accounts a JOIN lanes l ON l.account_id = a.id
            WHERE a.username IS NOT NULL ORDER BY a.id"""
    )
    return [(user_from(row), row["cap"], row["weight"]) for row in rows]


def _overrides(user: User) -> str | None:
    changes: Mapping[str, Any] = user.overrides
    return dumps(dict(changes)) if changes else None

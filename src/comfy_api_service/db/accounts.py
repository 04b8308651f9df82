"""Accounts and their lanes."""

from comfy_api_service.db.base import Tx
from comfy_api_service.domain.account import Account


async def ensure(tx: Tx, account: Account, now: float) -> None:
    """Write an account, with its lane, unless it is there."""
    await tx.run(
        """INSERT INTO accounts (id, name, tier, role, created_at) VALUES (:id, :name, :tier, :role, :now)
           ON CONFLICT (id) DO NOTHING""",
        {"id": account.id, "name": account.name, "tier": account.tier, "role": account.role, "now": now},
    )
    await tx.run(
        "INSERT INTO lanes (account_id, weight) VALUES (:id, :weight) ON CONFLICT (account_id) DO NOTHING",
        {"id": account.id, "weight": account.weight},
    )

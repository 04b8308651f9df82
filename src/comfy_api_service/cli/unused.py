"""Accounts are there, and authentication is off: in the words of every command that says so."""

from typing import Final

UNUSED_REMEDY: Final = (
    "Set AUTH_ENABLED=true, in the environment or in .env; without it everybody may do everything."
)


def unused_accounts(count: int) -> str:
    they = "1 account and its keys are" if count == 1 else f"{count} accounts and their keys are"
    return f"authentication is off; {they} not used"

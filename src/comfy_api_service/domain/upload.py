"""Input files that callers bring. Values only."""

from dataclasses import dataclass
from typing import Final

MAX_PIXELS: Final = 64_000_000
"""Width times height of the largest picture that is taken as an input."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture of one account, checked and cleaned, in the store under `key`.

    `sha256` (lowercase hex) and `bytes` are those of the file as it is stored; times are seconds since the epoch.
    """

    id: str
    account_id: str
    sha256: str
    media_type: str
    width: int
    height: int
    bytes: int
    key: str
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class JobInput:
    """An input of a node in whose place the backend is told the name that it gave the upload's file."""

    node_id: str
    input: str
    upload_id: str

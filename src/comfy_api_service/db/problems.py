"""Why a database cannot be used at start, told with a remedy. No message contains an address or a password."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Why the database cannot be used, and what to do about it; both may be shown."""

    message: str
    remedy: str


class DatabaseUnusable(Exception):
    """The database could not be opened at start; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem

"""How many deliveries a process has open at once, in all and of one account: taken and given back, never waited for."""

from collections import Counter


class Slots:
    def __init__(self, total: int, *, each: int) -> None:
        """`each`: most of one account."""
        self._free = total
        self._each = each
        self._taken: Counter[str] = Counter()

    @property
    def free(self) -> int:
        return self._free

    def room(self, account_id: str) -> int:
        """How many the account could take."""
        return max(min(self._free, self._each - self._taken[account_id]), 0)

    def take(self, account_id: str, wanted: int) -> int:
        """So many of those that are wanted, perhaps none."""
        got = max(min(wanted, self.room(account_id)), 0)
        self._free -= got
        self._taken[account_id] += got
        return got

    def give(self, account_id: str, count: int) -> None:
        self._free += count
        self._taken[account_id] -= count
        if self._taken[account_id] <= 0:
            del self._taken[account_id]

"""The suppression list, asked once for some messages of a batch and not once for each.

What it says may be as old as the batch's first look at it. That does no harm: a claim asks it once more.
"""

from collections.abc import Mapping, Sequence

from service.store.port import Store

_NOT_ASKED: tuple[frozenset[str], Mapping[str, str]] = (frozenset(), {})


class Suppressions:
    """Of one account. It asks the store by itself for whom it was not asked ahead."""

    def __init__(self, store: Store, account: str) -> None:
        self._store, self._account = store, account
        self._ahead: dict[str, tuple[frozenset[str], Mapping[str, str]]] = {}

    async def ask_ahead(self, keys: Mapping[str, Sequence[str]]) -> None:
        """Ask for these addresses, as address.email_key has them, by the categories of their messages."""
        for category, asked in keys.items():
            self._ahead[category] = frozenset(asked), await self._store.suppressed(self._account, asked, category)

    async def reasons(self, keys: Sequence[str], category: str) -> Mapping[str, str]:
        """Why addresses get no mail, or none of the category; who gets some is missing, and others may be there."""
        asked, found = self._ahead.get(category, _NOT_ASKED)
        if asked.issuperset(keys):
            return found
        return await self._store.suppressed(self._account, keys, category)

"""What is kept beside mail: suppressions, templates, what relays offer, API keys. Single rows, each in a write of its own."""

from collections.abc import Mapping, Sequence

from service import failpoints
from service.mail.address import email_key
from service.mail.envelope import Offer
from service.store.postgres.database import Database
from service.store.postgres.session import Rows
from service.store.postgres.statements import statement
from service.store.postgres.transaction import Transaction
from service.store.shown import ApiKey, Suppression, TemplateVersion
from service.store.views import key_of, key_row


class Keeping:
    """The part of the store that has nothing to do with the queue."""

    _database: Database

    async def _change(self, name: str, bindings: Mapping[str, object]) -> Rows:
        """The rows that one writing statement answers."""
        return await self._database.write(lambda transaction: transaction.ask(name, bindings))

    # --- suppressions --------------------------------------------------------------------------------------------

    async def suppressed(self, account: str, emails: Sequence[str], category: str = "") -> Mapping[str, str]:
        """See port."""
        keys = [email_key(each) for each in emails]
        if not keys:
            return {}
        rows = await self._database.ask(
            "suppressed: by address", {"account": account, "keys": keys, "category": category}
        )
        return {key: f"{reason} from {of}" if of else reason for key, reason, of in rows}

    async def list_suppressions(
        self, account: str, reason: str | None, limit: int, after: str | None
    ) -> Sequence[Suppression]:
        """See port."""
        bindings = {"account": account, "reason": reason, "limit": limit, "after": email_key(after or "")}
        return [Suppression(*row) for row in await self._database.ask("list_suppressions: page", bindings)]

    async def get_suppressions(self, account: str, email: str) -> Sequence[Suppression]:
        """See port."""
        bindings = {"account": account, "key": email_key(email)}
        return [Suppression(*row) for row in await self._database.ask("get_suppressions: by address", bindings)]

    async def add_suppression(self, account: str, suppression: Suppression) -> bool:
        """See port."""
        row = {
            "account": account,
            "address_key": email_key(suppression.email),
            "reason": suppression.reason,
            "email": suppression.email,
            "origin": suppression.origin,
            "created_at": suppression.created_at,
            "message": suppression.message,
            "detail": suppression.detail,
            "category": suppression.category,
        }
        return bool(await self._change("add_suppression: insert", {"rows": [row]}))

    async def remove_suppressions(
        self, account: str, email: str, reason: str | None, category: str | None = None
    ) -> int:
        """See port."""
        bindings = {"account": account, "key": email_key(email), "reason": reason, "category": category}
        return len(await self._change("remove_suppressions: delete", bindings))

    # --- templates -----------------------------------------------------------------------------------------------

    async def publish_template(self, name: str, digest: str, files: str, now: int, *, current: bool) -> int:
        """See port."""

        async def work(transaction: Transaction) -> int:
            given = {"name": name, "digest": digest, "files": files, "now": now}
            _, known = await transaction.run(
                statement("publish_template: lock", given), statement("publish_template: known", given)
            )
            rows = known or await transaction.ask("publish_template: version", given)
            number = int(rows[0][0])
            if current:
                failpoints.passed("template.publish")
                await transaction.ask("publish_template: current", {"name": name, "number": number, "now": now})
            return number

        return await self._database.write(work)

    async def retire_template(self, name: str) -> bool:
        """See port."""
        return bool(await self._change("retire_template: delete", {"name": name}))

    async def published_templates(self, name: str | None = None) -> Sequence[TemplateVersion]:
        """See port."""
        which = "published_templates: all" if name is None else "published_templates: one"
        return [TemplateVersion(*row) for row in await self._database.ask(which, {"name": name})]

    async def template_versions(self, name: str, limit: int) -> Sequence[TemplateVersion]:
        """See port."""
        rows = await self._database.ask("template_versions: newest", {"name": name, "limit": limit})
        return [TemplateVersion(*row) for row in rows]

    async def template_files(self, name: str, number: int) -> str | None:
        """See port."""
        rows = await self._database.ask("template_files: by number", {"name": name, "number": number})
        return rows[0][0] if rows else None

    # --- what relays offer ---------------------------------------------------------------------------------------

    async def learn_offer(self, endpoint: str, offer: Offer, now: int) -> None:
        """See port."""
        row = {"endpoint": endpoint, "smtputf8": offer.smtputf8, "max_size": offer.max_size, "now": now}
        await self._change("learn_offer: keep", row)

    async def offers(self) -> Mapping[str, Offer]:
        """See port."""
        rows = await self._database.ask("offers: all")
        return {endpoint: Offer(smtputf8, max_size) for endpoint, smtputf8, max_size in rows}

    # --- keys ----------------------------------------------------------------------------------------------------

    async def find_key(self, prefix: str) -> ApiKey | None:
        """See port."""
        rows = await self._database.ask("find_key: by prefix", {"prefix": prefix})
        return key_of(rows[0]) if rows else None

    async def add_key(self, key: ApiKey, *, only_if_none: bool = False) -> bool:
        """See port."""

        async def work(transaction: Transaction) -> bool:
            if only_if_none:
                _, there = await transaction.run(statement("add_key: lock"), statement("add_key: any"))
                if there:
                    return False
            await transaction.ask("add_key: insert", key_row(key))
            return True

        return await self._database.write(work)

    async def list_keys(self, account: str | None) -> Sequence[ApiKey]:
        """See port."""
        return [key_of(row) for row in await self._database.ask("list_keys: all", {"account": account})]

    async def revoke_key(self, account: str | None, id: str, now: int) -> bool:
        """See port."""
        return bool(await self._change("revoke_key: mark", {"account": account, "id": id, "now": now}))

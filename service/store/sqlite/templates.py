"""The part of the store that keeps published templates: versions by number, and which one the bare name means."""

from collections.abc import Sequence

from service import failpoints
from service.store.shown import TemplateVersion
from service.store.sqlite.plumbing import Plumbing
from service.store.sqlite.reads import Reader
from service.store.sqlite.transaction import Transaction


class TemplateStore(Plumbing):
    """Implements what store/port.Store says of templates."""

    async def publish_template(self, name: str, digest: str, files: str, now: int, *, current: bool) -> int:
        """See port."""

        def work(transaction: Transaction) -> int:
            row = transaction.one("publish_template: known", (name, digest))
            if row is None:
                version = {"name": name, "digest": digest, "files": files, "now": now}
                row = transaction.one("publish_template: version", version)
            if current:
                failpoints.passed("template.publish")
                transaction.run("publish_template: current", (name, row[0], now))
            return int(row[0])

        return await self._write(work, len(files))

    async def retire_template(self, name: str) -> bool:
        """See port."""
        return await self._write(
            lambda transaction: bool(transaction.run("retire_template: delete", (name,)).fetchall())
        )

    async def published_templates(self, name: str | None = None) -> Sequence[TemplateVersion]:
        """See port."""

        def read(reader: Reader) -> list[TemplateVersion]:
            rows = (
                reader.run("published_templates: all")
                if name is None
                else reader.run("published_templates: one", (name,))
            )
            return [TemplateVersion(*row) for row in rows.fetchall()]

        return self._read(read)

    async def template_versions(self, name: str, limit: int) -> Sequence[TemplateVersion]:
        """See port."""
        rows = self._read(lambda reader: reader.run("template_versions: newest", (name, limit)).fetchall())
        return [TemplateVersion(*row) for row in rows]

    async def template_files(self, name: str, number: int) -> str | None:
        """See port."""
        row = self._read(lambda reader: reader.one("template_files: by number", (name, number)))
        return row[0] if row else None

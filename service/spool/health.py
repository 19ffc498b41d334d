"""Whether this process may be sent requests: the store answers, it is not draining, and what guards are on."""

from typing import Any

from service.errors import PostroomError
from service.store.port import Store


class Readiness:
    """What /readyz answers, and the switches that a stop turns."""

    def __init__(self, store: Store, role: str) -> None:
        self._store = store
        self._role = role
        self.guard: str | None = None
        self.draining = False
        self.accepting = True
        self.held = False
        self.waiting_recipients = 0  # refreshed by the janitor

    async def report(self) -> tuple[bool, dict[str, Any]]:
        """Ready or not, and the checks one by one."""
        checks = {"storage": await self._storage(), "draining": "yes" if self.draining else "no"}
        ready = checks["storage"] == "ok" and not self.draining
        return ready, {
            "status": "ready" if ready else "not_ready",
            "role": self._role,
            "checks": checks,
            "sending": "held" if self.held else "on",
            "guard": self.guard,
            "waiting_recipients": self.waiting_recipients,
        }

    async def _storage(self) -> str:
        if not self._store.healthy():
            return "unavailable"
        try:
            await self._store.ping()
        except PostroomError as error:
            return error.code
        return "ok"

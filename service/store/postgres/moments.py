"""Moments by the server's clock, for what processes on several hosts tell each other about relays, quotas and limits.

A host's clock may be wrong, or step. The server's is the same for all, so what stands in the store is told by it; each
process reads it as moments of its own clock. The difference is measured with each read. It is kept while it holds to
about a second, so that what was read and is told back is the same to the millisecond.
"""

from dataclasses import replace

from service.clock import SYSTEM, Clock
from service.mail.trouble import Login, Standing, Trouble

_DRIFT = 1000  # ms of difference that are not worth a change


class Moments:
    """See the module. All are ms. A clock other than the system's, as tests use, stands in for the server's too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._stands_in = clock.source is not SYSTEM
        self.ahead = 0  # of ours, the server's clock

    def heard(self, server: int) -> int:
        """The server has just said what time it is there; that time."""
        if self._stands_in:
            return self._clock.now()
        self._clock.heard(server)
        now = self._clock.now()
        if abs(server - now - self.ahead) > _DRIFT:
            self.ahead = server - now
        return server

    def there(self, at: int) -> int:
        """A moment of ours, as it stands in the store; 0 is no moment."""
        return at and at + self.ahead

    def trouble_there(self, trouble: Trouble) -> Trouble:
        """A trouble of ours, as it stands in the store."""
        return _moved(trouble, self.ahead)

    def here(self, standing: Standing) -> Standing:
        """An account as it stands in the store, by our clock."""
        back, login = -self.ahead, standing.login
        troubles = {key: _moved(trouble, back) for key, trouble in standing.troubles.items()}
        return Standing(troubles, _moved_login(login, back))


def _moved(trouble: Trouble, by: int) -> Trouble:
    return replace(trouble, at=trouble.at + by, until=None if trouble.until is None else trouble.until + by)


def _moved_login(login: Login, by: int) -> Login:
    proven_at, lease_until = login.proven_at, login.lease_until
    return replace(login, proven_at=proven_at and proven_at + by, lease_until=lease_until and lease_until + by)

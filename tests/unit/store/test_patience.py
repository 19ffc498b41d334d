"""How long, and for what, a start waits for its database; time is virtual."""

import itertools

import pytest

from service.errors import ConfigurationError, StorageUnavailable
from service.store.patience import when_there
from tests.support.virtual import VirtualClock, virtually

AWAY = StorageUnavailable("nobody listens there")


class Reaching:
    """Meets each of the faults in turn and the last one for ever; None is none."""

    def __init__(self, clock: VirtualClock, *faults: Exception | None) -> None:
        self._clock, self._faults = clock, faults
        self.tried_at: list[float] = []

    def __call__(self) -> str:
        self.tried_at.append(self._clock.monotonic())
        fault = self._faults[min(len(self.tried_at), len(self._faults)) - 1]
        if fault is not None:
            raise fault
        return "reached"


def test_it_is_tried_again_until_it_is_there() -> None:
    async def main(clock: VirtualClock) -> None:
        reaching = Reaching(clock, AWAY, AWAY, None)
        assert await when_there(reaching, 120) == "reached"
        assert len(reaching.tried_at) == 3

    virtually(main)


def test_it_is_tried_less_and_less_often_and_the_last_time_when_the_time_is_over() -> None:
    async def main(clock: VirtualClock) -> None:
        reaching = Reaching(clock, AWAY)
        with pytest.raises(StorageUnavailable, match="nobody listens there"):
            await when_there(reaching, 120)
        tried = [at - reaching.tried_at[0] for at in reaching.tried_at]
        pauses = [after - before for before, after in itertools.pairwise(tried)]
        assert pauses[:5] == pytest.approx([0.5, 1, 2, 4, 5])
        assert pauses[4:-1] == pytest.approx([5] * len(pauses[4:-1]))
        assert tried[-1] == pytest.approx(120)

    virtually(main)


@pytest.mark.parametrize(("fault", "within"), [(ConfigurationError("the password is refused"), 120), (AWAY, 0)])
def test_what_does_not_pass_by_itself_and_a_wait_of_nothing_are_one_try(fault: Exception, within: float) -> None:
    async def main(clock: VirtualClock) -> None:
        reaching = Reaching(clock, fault)
        with pytest.raises(type(fault)):
            await when_there(reaching, within)
        assert len(reaching.tried_at) == 1

    virtually(main)

"""What relays offered is known to every process."""

from service.mail.envelope import Offer
from service.store.port import Store
from tests.support.clock import EPOCH


async def test_the_last_offer_of_a_relay_is_kept(store: Store) -> None:
    assert await store.offers() == {}
    await store.learn_offer("a:465", Offer(smtputf8=False, max_size=None), EPOCH)
    await store.learn_offer("b:587", Offer(smtputf8=True, max_size=5), EPOCH)
    await store.learn_offer("a:465", Offer(smtputf8=True, max_size=7), EPOCH + 1)
    assert await store.offers() == {"a:465": Offer(True, 7), "b:587": Offer(True, 5)}


async def test_another_process_knows_it_too(store: Store, open_another) -> None:  # type: ignore[no-untyped-def]
    await store.learn_offer("a:465", Offer(smtputf8=True, max_size=None), EPOCH)
    assert await (await open_another()).offers() == {"a:465": Offer(True, None)}

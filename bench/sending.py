"""One sender on the wire: `python -m bench.sending postroom|aiosmtplib PORT COUNT CONNECTIONS OPTIONS FILE`.

Sends the same prebuilt bytes COUNT times and prints {"seconds": ...}; what opens the connections is not counted. Postroom
is its pool, its judgement of every reply and a record of every attempt; only the store is left out.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import uvloop

FROM, TO = "zouchengzhuo@163.com", "405966530@qq.com"


async def postroom(port: int, count: int, connections: int, options: str, content: bytes) -> float:
    """Through the pool, as the dispatcher does: never more in flight than it says it can start."""
    from service.clock import SYSTEM
    from service.mail.envelope import Envelope
    from service.mail.seal import Sealed
    from service.relay.config import relay_from
    from service.relay.pool import Pool
    from service.relay.port import Outgoing, Report
    from service.settings import load
    from service.spool.settling import Settler, judge_all
    from service.store.values import Delivery, DueRecipient, Settlement

    scheme, _, rest = options.partition(",")
    login = f"{FROM.replace('@', '%40')}:AUTHCODE@" if "login" in rest else ""
    extra = "".join(f"&{each}" for each in rest.split(",") if "=" in each)
    url = f"{scheme}://{login}127.0.0.1:{port}?plaintext=allow&max_connections={connections}{extra}"
    values = {"url": url, "max_messages_per_connection": 10**9}
    pool = Pool(relay_from("r", values, "bench"), load(), SYSTEM)
    settler = Settler(load(), SYSTEM)
    sealed = Sealed((content,), FROM, FROM, "rule", rewritten=False)
    recipients = (DueRecipient(0, TO, 0, 0),)
    now = SYSTEM.now()
    records: list[Settlement] = []
    left, done, wanted = connections * 2, asyncio.Event(), connections * 2
    one_at_a_time = "one" in rest.split(",")  # nothing waits for a busy session

    def claimed(number: int) -> Delivery:
        """As the store hands it out."""
        return Delivery(
            number, False, "r", f"msg_{number}", "default", "id@163.com", "default||", 1, "at_least_once", now, now,
            now + 10**9, FROM, FROM, False, None, len(content), None, recipients, (content,),
        )  # fmt: skip

    deliveries = list(map(claimed, range(wanted)))

    def start() -> None:
        nonlocal left
        while left and pool.free(now) + (0 if one_at_a_time else pool.ahead(now)) > 0:
            left -= 1
            number, delivery = left, deliveries[left]
            outgoing = Outgoing(number, Envelope(FROM, (TO,), len(content)), sealed.segments)
            pool.start(outgoing, lambda report, delivery=delivery: record(delivery, report))

    def record(delivery: Delivery, report: Report) -> None:
        verdicts = judge_all(pool.policy, delivery, report.results, SYSTEM.now())
        settlement = settler.settle(delivery, report, sealed, verdicts, None)
        assert settlement.result == "sent", settlement
        records.append(settlement)
        if len(records) == wanted:
            done.set()

    pool.on_capacity(start)
    start()
    await done.wait()
    records.clear()
    done.clear()
    deliveries = list(map(claimed, range(count)))
    left = wanted = count
    began = time.perf_counter()
    start()
    await done.wait()
    seconds = time.perf_counter() - began
    await pool.close(1)
    return seconds


async def aiosmtplib(port: int, count: int, connections: int, options: str, content: bytes) -> float:
    """`sendmail` of aiosmtplib on as many clients as there are connections, each one message after the other."""
    import aiosmtplib as library

    clients = []
    for _ in range(connections):
        tls = {"use_tls": True, "validate_certs": False} if options.startswith("smtps") else {"use_tls": False}
        client = library.SMTP(hostname="127.0.0.1", port=port, start_tls=False, **tls)
        await client.connect()
        if "login" in options:
            await client.login(FROM, "AUTHCODE")
        await client.sendmail(FROM, [TO], content)
        clients.append(client)
    numbers = iter(range(count))

    async def work(client: library.SMTP) -> None:
        for _ in numbers:
            await client.sendmail(FROM, [TO], content)

    began = time.perf_counter()
    await asyncio.gather(*map(work, clients))
    seconds = time.perf_counter() - began
    await asyncio.gather(*(client.quit() for client in clients))
    return seconds


if __name__ == "__main__":
    who, port, count, connections, options, file = sys.argv[1:]
    send = {"postroom": postroom, "aiosmtplib": aiosmtplib}[who]
    seconds = uvloop.run(send(int(port), int(count), int(connections), options, Path(file).read_bytes()))
    print(json.dumps({"seconds": seconds}))

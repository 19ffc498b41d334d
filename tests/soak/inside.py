"""Whether somebody who stands still has something in hand that others wait for: the file's lock, or a row of a quota.

It looks from outside, past service/store, and changes nothing.
"""

import fcntl
import os
import time

import psycopg

_STILL = 0.2  # seconds: a commit takes a hundredth of it
_STANDING = """
SELECT count(*) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid JOIN pg_class k ON k.oid = l.relation
WHERE a.datname = current_database() AND a.state LIKE 'idle in transaction%' AND k.relname = 'limits' AND l.granted
    AND clock_timestamp() - a.state_change > make_interval(secs => 0.15)
"""


def somebody_is_in_the_way(database_url: str) -> bool:
    """Of those who use this store, one stands still within a transaction that holds up others."""
    if database_url.startswith("sqlite:///"):
        return _locked(database_url.removeprefix("sqlite:///") + ".lock")
    time.sleep(_STILL)
    with psycopg.connect(database_url, autocommit=True) as connection:
        row = connection.execute(_STANDING.encode()).fetchone()
        return row is not None and row[0] > 0


def _locked(path: str) -> bool:
    handle = os.open(path, os.O_RDWR)
    try:
        end = time.monotonic() + _STILL
        while time.monotonic() < end:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.005)
            else:
                return False
        return True
    finally:
        os.close(handle)

"""The Store on PostgreSQL: many replicas, the database's clock for leases, and no state that a pooler could lose.

session.py is one connection, database.py all of them, transaction.py one transaction, lane.py the group commit.
accept.py and sending.py (settle.py, claim.py) are what groups do; changes.py, rescue.py and reads.py are the rest.
"""

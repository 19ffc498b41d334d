"""Postroom beside other ways to send mail, end to end, in one run: `python -m bench.rivals`.

work        what is sent: a message from a template, the same for all, and the requests that ask for it
sink        where all of it goes: one relay that remembers the id of every copy
generator   who asks: HTTP clients in a process of their own
install     the rivals from PyPI and npm, in a cache folder of the user
rival       what a rival is, and what it leaves out; one module for each stands beside it
turns       one turn of one rival, and the rounds: who is next, what is counted, what must hold
report      the tables and pictures
"""

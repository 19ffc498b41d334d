"""Postroom: other services hand in mail by POST /send; provider relays carry it on. The story of one message:

api/            reads and checks the request (api/models), says who asks (api/auth), answers 202 or problem+json
spool/submit    has this Idempotency-Key been answered? takes from the limiters, commits, tells the dispatcher
spool/prepare   merges recipients, asks the suppression list, renders, composes, makes a trial seal
mail/render     Jinja templates in a sandbox -> subject, html, text
mail/compose    a draft -> MIME bytes; mail/gate reads them again
store/          the only SQL: accept, claim, settle; a 202 is given only after its commit
spool/dispatch  claims what can start now; mail/seal applies the relay's sender rule
relay/pool      a slot for each authenticated session; relay/session connects, relay/transaction speaks
mail/outcome    what the reply means; mail/lifecycle what state follows
spool/settling  writes it down; store.settle commits attempt, states and log together
spool/janitor   rescues, expires, purges
capture/        the development relay and its inbox
"""

"""How the cost of a message grows with what there is: a queue, recipients, connections, relays, keys, templates.

Each dimension is a row of services that differ in one number alone. They run side by side and take turns, so that a noisy
minute of the machine falls on all of them; what is compared is first of all the processor time that a service spends on
a message, which noise moves less than it moves a rate.
"""

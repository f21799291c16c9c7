"""How much each update counts: by examples (FedAvg), all the same, step-normalised (FedNova),
norm-equalised, by need (q-FFL, TERM).

A piece gives a weight and a coefficient a reply, and a final scale, so that updates can be folded
as they arrive.
"""

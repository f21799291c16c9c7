"""How updates are added up: `stack` (exact for unequal ranks) and `mean` of factors (the FedIT baseline).

Each is a streaming sum: the accumulator's size does not depend on how many updates went in.
"""

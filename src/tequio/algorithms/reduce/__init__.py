"""How updates are added up: exactly (`stack`), as factors (`fedit`; one at a time:

`ffa`, `rolora`), or robustly against bad ones.

All but the robust ones stream: their accumulator's size does not depend on how many updates went
in.
"""

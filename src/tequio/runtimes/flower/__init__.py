"""Flower 1.42 as the engine between real organisations: the only folder that knows flwr (extra
`[flower]`, pinned exactly).

`superlink` starts the hardened server, `exchange` is the coordinator's runtime, `node` a
participant's resident process. No code travels.
"""

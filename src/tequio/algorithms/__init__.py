"""The pure pieces of a federation, one file each: start (of a round), reduce (how updates are added
up), weights, server.

State in, state out; no I/O, no clock, no hidden seed. A new piece is one file, one line in
`registry.py`, one row in `tests/laws/`.
"""

"""Use cases: the only place where layers are put together.

Each folder is one use case; `assembly` turns a configuration into a run ready to go.
"""

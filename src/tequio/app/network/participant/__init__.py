"""A participant's process: `join`, `participate`, `leave`, `island`.

It answers the coordinator's requests and keeps its own models and accounts.
"""

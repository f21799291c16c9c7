"""The record of a run: one SQLite file holding an append-only hash chain and the last checkpoint.

Also the run folder: its lock (one writer at a time) and files that are written whole or not at all.
"""

"""Texts: one file per language with every sentence that reports, terminal and `--json` show, and
the readers of reasons.

words.py fills in texts; earlier.py reads reasons of any version, earlier.toml has the sentences of
versions before codes.
"""

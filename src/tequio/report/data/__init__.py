"""Rows of the report, computed from a run's records.

Nothing here knows HTML.
"""

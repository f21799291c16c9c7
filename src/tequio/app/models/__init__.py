"""Uses of a finished run: open, predict, export, verify, adapt.

Nothing here changes the run's record.
"""

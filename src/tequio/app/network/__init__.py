"""A federation of processes: a coordinator, participants, what watches them, and the coordinator's
folder.

Rounds across a network are the rounds of `coordinator`; here is who is there, what is owed, and
what is on disk.
"""

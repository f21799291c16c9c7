"""From validated configuration to wired objects, and from a run folder back: the only place where layers are put together.

`config` reads the two files, `wire` builds, `run` makes the rounds and `stages` what comes after them, `demos` prepares real data.
"""

"""From validated configuration to wired objects, and from a run folder back: the only place where layers are put together.

`config` reads the two files, `wire` builds, `run` drives a run from start to end, `demos` prepares real data.
"""

"""All participants in one process: `tequio run`.

It makes the rounds, the personal models, and the baselines that only a simulation can compute.
"""

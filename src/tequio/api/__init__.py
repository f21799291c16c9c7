"""The Python API, as `import tequio` offers it: federations, runs as mappings of participants, rows
for tables, sweeps.

The commands are its first user. Nothing here imports torch before a function needs it.
"""

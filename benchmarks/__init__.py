"""One question a script, each printing its ratio; `study` has the questions about algorithms.

Nothing here is part of the package.
"""

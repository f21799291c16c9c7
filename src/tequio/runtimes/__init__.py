"""Runtimes carry tasks to participants and replies back:

`embedded` runs all of them in this process.

Coordinator and participants never import each other; a runtime is where they meet.
"""

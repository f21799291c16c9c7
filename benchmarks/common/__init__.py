"""What several benchmarks share: random bases, a server, a slow line, the memory of a process, and
commands as users type them.
"""

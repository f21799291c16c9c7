"""What every layer shares: errors and their texts, the types of a round, the update algebra,
canonical bytes, protocols.

Pure values and functions: no I/O, no clock, no hidden seed. Imports nothing else of Tequio.
"""

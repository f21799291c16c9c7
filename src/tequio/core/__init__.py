"""What every layer shares: errors, the types of a round, the update algebra, canonical bytes, protocols.

Pure values and functions: no I/O, no clock, no hidden seed. Imports nothing else of Tequio.
"""

"""The forecast before a run: memory, time, energy, carbon and money, with intervals: `tequio plan`.

Finished runs calibrate it.
"""

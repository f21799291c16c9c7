"""From configuration to a run ready to go; everything that can be wrong is found here, before the
first step.

The simulation, the network and the forecast build their runs from these parts.
"""

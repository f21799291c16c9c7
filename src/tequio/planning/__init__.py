"""What fits and what each can finish in time: memory.py sums the memory of a run before anything is loaded,
allotment.py gives each participant the rank and steps that its hardware allows. Arithmetic only; recipes act on it.
"""

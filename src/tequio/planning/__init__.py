"""What fits, what each can finish in time, and what it takes: memory.py, allotment.py (rank and
steps for each), schedule.py and shift.py
(hours), and for plans devices.py (the catalogue), flops.py, work.py and rates.py (how long),
options.py (the Pareto set). Arithmetic only; `app` acts on it.
"""

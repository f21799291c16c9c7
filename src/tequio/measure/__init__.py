"""What a run cost and whom it helped: energy.py meters electricity and says how it knows, statistics.py holds
the bootstrap and the measures of equity. Readings and numbers only; nothing here decides anything.
"""

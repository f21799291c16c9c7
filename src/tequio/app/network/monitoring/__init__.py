"""What a person or a monitoring system can see of a running federation: status, health, metrics,
checks.

It reads the folders of a process and never takes part in a round.
"""

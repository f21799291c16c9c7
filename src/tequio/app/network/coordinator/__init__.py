"""The coordinator's process: `coordinator start`.

It waits for participants, makes the rounds, and asks for the personal models.
"""

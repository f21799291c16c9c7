"""The coordinator's folder: its keys and certificates, the roster, and enrolment.

Commands and the running coordinator read and write it here.
"""

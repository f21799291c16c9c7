"""Ensembles: how what several models predict becomes one teacher, and the loss toward it.

Different models may predict; only the classes (labels, or words of one vocabulary) are common.
"""

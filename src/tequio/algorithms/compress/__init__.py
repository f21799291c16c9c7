"""Codecs: an update as few bytes, and back. One file each;

`registry.py` has them by name, `codec.py` says what one must offer.

Bytes that arrive may come from anybody: a decoder checks sizes before it allocates, never
unpickles, and raises UpdateError.
"""

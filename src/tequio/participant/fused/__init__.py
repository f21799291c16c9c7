"""Whole layers of a frozen model as one step of autograd each: what a LoRA step needs is computed
and kept, nothing else.

Frozen weights get no gradient, adapters of a layer go along in the same pass, and float32 copies
live for one operation.
"""

"""The commands: thin functions that read arguments, call `recipes`, and print. Heavy imports happen inside them.

The only package, with `web`, that prints.
"""

"""The commands: thin functions that read arguments, call `app`, and print.

Heavy imports happen inside them.

The only package, with `report`, that prints.
"""

"""Interfaces, families, registry, runs, models and the training engine.

`import t2i` has what is public of it.
"""

"""Measure speed and memory of every preset on one device: `python -m t2i.benchmarks.gpu`."""

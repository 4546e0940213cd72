"""Imagen, and DeepFloyd IF."""

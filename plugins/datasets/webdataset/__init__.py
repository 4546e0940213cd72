"""Captioned images in tar shards."""

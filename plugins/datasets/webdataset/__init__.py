"""Captioned pictures in tar shards."""

"""No text at all."""

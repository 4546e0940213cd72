"""The text encoder `joined`."""

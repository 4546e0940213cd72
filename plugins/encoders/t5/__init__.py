"""The text encoder `t5`."""

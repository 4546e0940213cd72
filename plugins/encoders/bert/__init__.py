"""The text encoder `bert`."""

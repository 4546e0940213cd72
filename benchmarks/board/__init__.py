"""The board: every model of the zoo on `shapes`, trained for the same time."""

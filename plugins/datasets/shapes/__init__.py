"""The built-in data set: simple shapes, rendered on demand, with captions and an exact reader."""

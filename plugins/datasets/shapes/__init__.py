"""The embedded data set: simple shapes, drawn as they are asked for, with captions and an exact reader."""

"""The data set `coco`: photographs with captions."""

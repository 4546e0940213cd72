"""A folder of images and captions."""

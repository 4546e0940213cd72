"""A folder of pictures and captions."""

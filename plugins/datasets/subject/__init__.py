"""A subject's few images, with prior preservation (DreamBooth)."""

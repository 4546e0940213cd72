"""COCO: captioned photographs."""

"""The data set `webdataset`: images and captions in tar shards."""

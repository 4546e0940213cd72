"""The data set `imagefolder`: a folder of images and captions."""

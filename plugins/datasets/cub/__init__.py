"""The data set `cub`: Caltech-UCSD Birds, in the layout of the StackGAN line."""

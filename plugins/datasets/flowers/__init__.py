"""The data set `flowers`: Oxford Flowers, in the layout of the StackGAN line."""

"""The model `glide`: a text transformer, a base network and an upsampler (Nichol et al. 2022)."""

"""What cascades of diffusion models share: their parts, and the upsampler."""

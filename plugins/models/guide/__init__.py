"""The model `guide`: a classifier of noisy images, which steers diffusion models."""

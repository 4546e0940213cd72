"""A t2i plugin from outside: a model that is neither a GAN nor a diffusion model, and all that it needs."""

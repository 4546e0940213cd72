"""A third-party t2i plugin: a model that is no GAN and no diffusion model, and all it needs."""

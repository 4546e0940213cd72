"""What variational models share: Gaussians and their KL, bounds, discretised logistics, priors."""

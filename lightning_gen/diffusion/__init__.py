"""Diffusion and flow matching apart from any network: noise schedules, targets, samplers, likelihoods."""

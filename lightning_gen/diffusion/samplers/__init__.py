"""Samplers: from noise to images through the noise levels of a schedule, by estimates of the image."""

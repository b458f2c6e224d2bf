"""Train, score and compare image generative models with PyTorch Lightning.

Importing this package is cheap: torch and Lightning load only with the rooms that need them.
"""

__version__ = "0.1.0"

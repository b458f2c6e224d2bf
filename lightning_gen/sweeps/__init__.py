"""Sweeps without a server: W&B's sweep files, Optuna's search, a process for each trial (docs/sweeps.md). No torch."""

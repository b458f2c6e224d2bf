"""Groups of commands of ``lightning-gen``; like `lightning_gen.cli` they import torch only once they compute."""

"""Networks: they know torch and nothing of training."""

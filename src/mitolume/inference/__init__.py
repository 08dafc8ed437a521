"""From any image to the probability of mitochondria."""

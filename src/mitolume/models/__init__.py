"""Networks, losses and the bundle that shares them. Knows no training and no file of images."""

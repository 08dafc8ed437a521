"""Stacks checked for Noise2Noise, and denoisers learnt from them."""

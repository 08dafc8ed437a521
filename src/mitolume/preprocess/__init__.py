"""Arrays to arrays, with numpy only: sharpen, rescale, normalise."""

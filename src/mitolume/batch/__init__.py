"""Commands over files: predict, denoise, measure, evaluate, focus, inspect, convert, simulate."""

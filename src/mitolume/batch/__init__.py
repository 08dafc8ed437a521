"""Commands over files: predict, denoise, measure, evaluate, convert, export, simulate, ..."""

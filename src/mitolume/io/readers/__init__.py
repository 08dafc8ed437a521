"""One module for each format: its scenes as lazy arrays, and what it states of them."""

"""Masks to tables of objects, and masks of two people or programs compared."""

"""Masks to numbers and pictures. Knows no network."""

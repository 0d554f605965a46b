"""Bounding, noise and its exact accounting. Imports nothing else of ours but errors and values."""

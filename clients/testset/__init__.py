"""Controlled test sets: clips made from a recipe, and models scored on them offline."""

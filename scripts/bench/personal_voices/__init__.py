"""Synthetic speakers for the benches of personalisation and training; none of them trained the base."""

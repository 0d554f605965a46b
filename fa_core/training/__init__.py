"""Training from many devices: from a release of noised sums to a candidate that nobody runs yet."""

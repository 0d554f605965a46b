"""Rollouts: the document, the sequential gate, and the states from the test set to the whole fleet."""

"""The device: what it stores, what it permits, what it counts, what it answers."""

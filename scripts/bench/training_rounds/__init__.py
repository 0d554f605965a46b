"""The bench of training: who speaks, one round, its attackers, real people, and Flower's own strategy."""

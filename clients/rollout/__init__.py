"""The device's side of a rollout: what it believes, which model acts on it, and what it remembers."""

"""The engines of this machine: a fleet directory behind the same rounds that a federation runs."""

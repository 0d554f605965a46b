"""Unheard: federated evaluation for voice. Plans, metrics, privacy, secure aggregation, estimates."""

"""The dashboard: which groups the model serves worse, and whether the evidence is significant. Start at `dashboard.serve`."""

"""The dashboard: see who the model fails, and whether the evidence is enough. Start at `dashboard.serve`."""

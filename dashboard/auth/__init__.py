"""Who may see the dashboard, as what, and what they did."""

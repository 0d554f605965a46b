"""Charts: each function takes estimates with their intervals and returns an Altair chart that shows both."""

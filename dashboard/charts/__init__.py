"""Charts: each function takes numbers with their intervals and returns an Altair chart. None drops an interval."""

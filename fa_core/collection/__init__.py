"""A sum by two aggregators: devices upload once; leader and helper verify, add, and add noise."""

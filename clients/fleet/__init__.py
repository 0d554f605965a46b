"""Building, reading and checking fleets of devices for the laboratory."""

"""Building, reading and checking fleets of devices for simulations and labs."""

"""Everything of Flower's API that we touch: it changes monthly, and nothing else imports `flwr`."""

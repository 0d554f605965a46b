"""What the pages read from the store, and numbers and sentences as a person reads them."""

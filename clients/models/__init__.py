"""What a device loads from its fleet's owner: fetched, verified, kept, and read in closed forms."""

"""Reading the store, formatting numbers, and the sentences of the pages."""

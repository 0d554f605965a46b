"""The selection of what a page shows, kept in the URL, and links between pages."""

"""What is looked at, kept in the URL, and links from page to page."""

"""Page."""


def page() -> None:
    """Show the page."""

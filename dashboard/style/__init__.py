"""Theme: colours, HTML components, the style sheet, and the index page."""

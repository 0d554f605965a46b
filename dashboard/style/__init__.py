"""How the dashboard looks: colours, small pieces of HTML, and the one page that everything runs in."""

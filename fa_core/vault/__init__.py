"""The vault: it keeps donated samples that it cannot open, and hands them to two reviewers together."""

"""What passes between a device that donates a sample, the vault that keeps it and its two reviewers."""

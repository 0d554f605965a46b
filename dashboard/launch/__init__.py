"""Writing a plan, launching it, and following the run."""

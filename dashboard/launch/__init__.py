"""Writing a plan, launching it, and monitoring the run."""

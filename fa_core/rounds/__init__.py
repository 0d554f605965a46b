"""Rounds: sample nodes, drive the protocol stage by stage, and end as released or as failed."""

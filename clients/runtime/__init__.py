"""Detectors and the path from audio to events."""

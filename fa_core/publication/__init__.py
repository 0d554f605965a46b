"""What a fleet's owner publishes for devices: signed artefacts and rollouts, proved to be logged."""

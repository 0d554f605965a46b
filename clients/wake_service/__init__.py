"""The device as the wake-word service of a voice assistant, in the Wyoming protocol."""

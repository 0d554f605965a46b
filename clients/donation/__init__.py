"""Donation: the only audio that ever leaves a device, sample by sample, each one seen and agreed to."""

"""Alerts: a webhook and an e-mail when a guardrail breaks, a round fails, or a budget runs low.

They are read from what a store has released, so they hold public results and no device's value.
"""

"""The device process: store, consent, policy, budget, receipts."""

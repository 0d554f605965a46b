"""`python -m fa_core.superlink`: Flower's SuperLink as a federation runs it, with Flower's own arguments."""

from fa_core.transport import patient_superlink

if __name__ == "__main__":
    patient_superlink()

"""Who vouches for whom: enrolment of devices, the witness, checkpoints of the log, signed requests."""

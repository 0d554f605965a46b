"""The bytes between server and device: invitations, the task that both derive, bundles of messages."""

"""A federation as an operator runs it: its directory, its certificates and units, and a lab on one machine.

The room starts Flower's processes and ours, and talks to the SuperLink through `fa_core.flower`. It holds
no numbers: what a run releases is decided in `fa_core.rounds`, and how a run ended is read from the store.
"""

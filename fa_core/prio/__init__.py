"""Prio3 with two aggregators: sums of vectors that each prove their own validity, from secret shares.

Source: draft-irtf-cfrg-vdaf (wire version 18). Pure: no socket, no store, no clock, and no randomness of its
own.

numpy is not constant-time: how long a function takes may depend on the secrets that it is given. Run none of
this where somebody else can measure the processor, as on a machine shared with others.
"""

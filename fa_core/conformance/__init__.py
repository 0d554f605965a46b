"""Does a device keep to the specification? Drives one in any language through vectors and a hostile round.

The device stands behind an adapter: JSON lines on its standard input and output (docs/conformance.md).
Nothing here is part of a deployment.
"""

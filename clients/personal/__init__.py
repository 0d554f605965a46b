"""The device learns its owner: an adapter on a frozen base, fitted, checked and kept on the device alone."""

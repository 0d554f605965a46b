"""A gateway: a hub whose devices are far away. It passes letters on and learns nothing from them.

relay (ClientApp) --Unix socket--> door --> desk (database) <-- service (HTTPS, several workers) <-- devices
"""

"""A gateway: a hub whose devices are remote. It passes messages on and learns nothing from them.

ClientApp --Unix socket--> relay server --> queue (database) <-- service (HTTPS, several workers) <-- devices
"""

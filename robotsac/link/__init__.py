"""The two ends of the ZeroMQ conversation."""

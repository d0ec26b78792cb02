"""The twin: a virtual servo bus. Firmware of X-series servos behind a half-duplex wire, physics behind the servos.

It shares no frame code, no register map and no constant with the driver: both are written from the protocol's facts, so a
mistake in one shows up as a disagreement with the other.
"""

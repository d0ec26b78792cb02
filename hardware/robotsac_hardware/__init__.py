"""Drivers for real arms: a plug-in of robotsac."""

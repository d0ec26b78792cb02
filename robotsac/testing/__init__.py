"""Conformance suites that a driver or task author subclasses."""

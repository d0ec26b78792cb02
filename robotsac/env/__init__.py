"""The one gymnasium environment, its codec and its tasks."""

"""The command line; imports each application only when its command is named."""

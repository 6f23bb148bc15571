"""Labeling pictures with the reader's help: what to ask next, what was typed, and when to stop."""

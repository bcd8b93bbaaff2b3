"""Configured runs, their reports and their figures."""

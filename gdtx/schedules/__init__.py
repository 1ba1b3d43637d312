"""Schedules of hyperparameters."""

"""What notebooks use: states, schedules and learning rates, read and drawn."""

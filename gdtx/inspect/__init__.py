"""Reading a state: its parts, its size, its hyperparameters, numbers for a logger."""

"""Methods that see a parameter as a whole: its axes, its matrix, its second moments."""

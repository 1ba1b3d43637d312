"""Methods that see a matrix where others see its numbers."""

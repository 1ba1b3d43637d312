"""Links that see arrays as matrices: their axes, their blocks, their second moments."""

"""Trees of arrays: structures, paths, choices, shardings, where states lie."""

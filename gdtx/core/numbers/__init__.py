"""Numbers: dtypes, norms, averages, and what leaves gdtx in which dtype."""

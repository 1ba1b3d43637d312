"""Linear algebra of single arrays: products, roots, inverses, Newton's and polar iterations."""

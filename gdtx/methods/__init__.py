"""The methods of the literature, each an expression of links beside its paper's formula."""

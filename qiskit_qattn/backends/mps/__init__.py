"""Matrix product states, through Aer."""

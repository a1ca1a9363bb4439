"""How good a representation is: protocols that look at a trained method and change nothing in it."""

"""How good the answers are, measured on your own questions."""

"""Evidence for an answer: from words and vectors to a calibrated probability, and the floor under it."""

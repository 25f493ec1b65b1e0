"""Citation to the word: quotes found in their source, sentences and numbers checked against it."""

"""Documents cut into chunks: at sentences, within the token limit of the model, with their context."""

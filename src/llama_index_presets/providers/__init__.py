"""Models by name: the tables of providers, and how the LlamaIndex class behind a name is made."""

"""Model calls: what one is, when it begins, streams and ends, from the events of LlamaIndex."""

"""One question or chat message on its way through an engine: run, answer, reuse of answers, fallback."""

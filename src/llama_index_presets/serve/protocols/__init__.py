"""Protocols that an engine is served by: REST, OpenAI's, MCP, server-sent events; errors and the OpenAPI page."""

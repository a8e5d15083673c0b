"""Where circuits run: backend strings, their registry, and one module a provider."""

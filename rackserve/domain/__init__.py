"""The nouns of rackserve: frozen models and the exception tree. Imports pydantic only."""

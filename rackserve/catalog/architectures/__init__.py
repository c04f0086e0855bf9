"""Readers of Hugging Face config.json files: one function per kind of model, none of which guesses."""

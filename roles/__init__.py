"""One file per role, each with one public @deploy function that a deploy script calls on its own line."""

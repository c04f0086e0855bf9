"""One file per role, each with one public @deploy function that a deploy script calls on its own line."""
# Names of operations are constant: on hosts that differ, pyinfra shows one operation under all the names it was given.

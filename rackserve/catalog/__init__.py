"""Facts with a source and a date: GPUs, models and how runtimes are had."""

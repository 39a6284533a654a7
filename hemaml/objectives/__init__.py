"""One folder a task, one file a model; the name is the path."""

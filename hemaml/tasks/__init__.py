"""One module a task: data, splits, score, primary metric."""

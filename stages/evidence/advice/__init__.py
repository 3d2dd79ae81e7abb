"""Whether to go online: what can be known before it is tried, and what earlier studies found where they did both."""

"""All that knows MLflow, which is told about runs and never asked."""

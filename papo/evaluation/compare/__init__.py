"""Two evaluations problem by problem, and several as one table."""

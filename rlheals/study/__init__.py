"""A study: its plan, its jobs, what is recorded of it, and its claims."""

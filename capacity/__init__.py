"""The capacity planner: what the stack's figures do under a trace of requests, and what they cost."""

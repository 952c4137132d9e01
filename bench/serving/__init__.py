"""The endpoint through its real server, beside the reference and other runtimes."""

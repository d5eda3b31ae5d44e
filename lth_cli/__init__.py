"""A laboratory for lottery-ticket research on the command line."""

"""What a person types: one module a command; parses, calls, shows. No science."""

"""What `import lth_cli as lth` offers to Python programs and notebooks."""

"""What a training minimises, and what is measured of it."""

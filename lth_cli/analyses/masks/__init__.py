"""What do masks have in common, and which weights does retraining make small?"""

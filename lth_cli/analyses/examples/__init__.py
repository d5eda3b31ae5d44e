"""What do trainings find easy and hard? Scores of every training example, by its position in the whole training set."""

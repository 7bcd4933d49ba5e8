"""Scores: networks trained on a set of images, and tested on real ones.

training              recipes, and the training loop
evaluation            accuracies over networks and trials, and random real images to compare
confusion             counts of (true, predicted) classes; precision, recall and F1
dd_ranking            label-robust and augmentation-robust scores
outcomes              each kind of outcome: its file, its score, its images
distilled_model_file  the network that a method returns instead of a set, as a file
trained_model         a network for use: its file, and the probabilities of its classes
"""

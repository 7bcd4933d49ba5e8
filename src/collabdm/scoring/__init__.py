"""Score sets of images: train networks on them, and test the networks on real images.

training              defines the recipes, and trains networks
evaluation            measures accuracies over networks and trials, and draws random real images
confusion             counts (true, predicted) classes, and computes precision, recall and F1
dd_ranking            computes label-robust and augmentation-robust scores
outcomes              defines the file, the score and the images of each kind of outcome
distilled_model_file  reads and writes the network that a method returns instead of a set
trained_model         reads and writes a network for use, and computes class probabilities
"""

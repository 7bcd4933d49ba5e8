"""The algorithm: seeded embeddings, their class means at the sites, and matching at the server.

Bottom up:

    thresholds          a layer of random thresholds, for rows of a table
    networks            ConvNet, AlexNet, VGG11, ResNet18 and others, with weights from a seed
    compiled_layers     the same layers, as expressions that compile well
    network_size        the width and the cost of a network, without allocating weights
    compiled_code       the private folder of compiled code
    compute             device, precision and compilation
    augment             Siamese augmentation, partition-and-expand, CutMix
    embedding           v = P_t psi_t(augment_t(x)), the embedding of a step
    embedding_bound     the largest norm that an embedding can have
    class_statistics    a site's class means: computing, encoding and merging them
    robust_merging      merging that limits the effect of one site, and how sites differ
    loop                the matching loss, and the loop that minimises it
    run_context         device, progress and checkpoints of a computation
    weights             copying, loading and declaring the weights of a trained network

`methods.collabdm` and `methods.localdm` combine these parts into Algorithm 1.

Reference: R. Holland, C. Thapa, S. A. Siddiqui, W. Shao, S. Camtepe, "One-shot collaborative data
distillation", 2024.
"""

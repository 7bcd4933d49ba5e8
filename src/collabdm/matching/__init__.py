"""The algorithm: seeded embeddings, their class means at the sites, and matching at the server.

Bottom up:

    networks            ConvNet, AlexNet, VGG11 and ResNet18, with weights from a seed
    compiled_layers     the same layers, as expressions that compile well
    network_size        widths and multiplications of a network, without its weights
    compute             device, precision and compilation
    augment             Siamese augmentation, partition-and-expand, CutMix
    embedding           v = P_t psi_t(augment_t(x)), the embedding of a step
    class_statistics    class means of a site, their encoding, and their merging
    loop                the matching loss, and the loop that moves images down its gradient
    run_context         device, progress and checkpoints of a computation
    weights             weights of a trained network, to copy, load and declare

`methods.collabdm` and `methods.localdm` combine these parts into Algorithm 1.

Reference: R. Holland, C. Thapa, S. A. Siddiqui, W. Shao, S. Camtepe, "One-shot collaborative data
distillation", 2024.
"""

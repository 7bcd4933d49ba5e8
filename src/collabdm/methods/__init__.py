"""The methods, which turn the data of the sites into one outcome. Each method has two functions,

    contribute(plan, data, site, context) -> Contribution
    distill(plan, contributions, context, allow_missing) -> Outcome

and `registry` calls those of the method that the plan names. The modules are:

    collabdm         sites send statistics and local images, and the server refines the images (the
                     paper's Algorithm 1); its settings also give LocalDM, Central and pae
    localdm          a site distils its data locally
    coreset          sites send representative real images
    fedd3            sites send inducing points, learned by kernel ridge regression
    dosfl            sites send training steps
    dosfl_steps      a site learns the training steps of DOSFL
    dense            sites send networks, and the server distils their ensemble
    dense_generator  the generator of DENSE makes images for the ensemble
    rounds           distribution matching takes many rounds
    gradient_rounds  gradient matching takes many rounds
    fedavg           federated averaging takes many rounds
    base             defines the type Method and what methods share
    own_images       packs images as extra tensors, for coreset and FedD3
    local_training   trains a network at a site, for DENSE and FedAvg
    registry         finds methods by name, in this and in other packages, and runs them

docs/methods.md compares the bytes, the rounds and the trust that each method needs, and shows how
to add a method.
"""

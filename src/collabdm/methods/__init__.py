"""The methods: ways from the sites' data to one outcome. Each is a file with two functions,

    contribute(plan, data, site, context) -> Contribution
    distill(plan, contributions, context, allow_missing) -> Outcome

and `registry` dispatches on the method that the plan names.

    collabdm         statistics and local images, refined at the server (the paper's Algorithm 1);
                     its settings also give LocalDM, Central and the variants with pae
    localdm          the local distillation of a site
    coreset          real images of each site
    fedd3            inducing points of each site, by kernel ridge regression
    dosfl            training steps of each site
    dosfl_steps      the steps of DOSFL, and how a site learns them
    dense            a network of each site; the server distils their ensemble
    dense_generator  the generator of DENSE
    rounds           distribution matching in many rounds
    gradient_rounds  gradient matching in many rounds
    fedavg           federated averaging
    base             the type Method, and the parts that methods share
    own_images       images as extra tensors, for coreset and FedD3
    local_training   local training, for DENSE and FedAvg
    registry         the methods by name; contribute and distill; methods of other packages

docs/methods.md compares the bytes, the rounds and the trust that each needs, and shows how to add
another.
"""

"""The audit: attack what a round releases, in the laboratory, where the truth is known.

    data -> members, non-members, reference -> rounds -> attacks -> audit.json, audit.png

The auditor draws candidates from one data set. A round uses a random half of them, its members;
the attacks rank all candidates by how likely they were used. The attacker knows the plan, and has
other images of the same classes, the reference.

- `settings` defines the sizes of an audit; `candidates` divides the data and draws the rounds.
- `rates` measures a ranking: its AUC, and its true positives at few false ones, with intervals.
- `means` recognises members by the class means, and calibrates scores with shadow rounds.
- `nearest` and `losses` recognise members by released images, and by networks trained on them.
- `canaries` measures how far inserted images stand out.
- `inversion` reconstructs the images of a small class from its means.
- `audit` runs everything; `record` and `picture` write the results.

References: R. Shokri et al., "Membership inference attacks against machine learning models", S&P
2017. N. Carlini et al., "Membership inference attacks from first principles", S&P 2022.
"""

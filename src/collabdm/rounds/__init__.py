"""A round, from files to files: the code shared by the command line and Flower.

    Plan, images, Policy   ->  Contribution, a file      at a site
    Plan, contributions    ->  outcome, a file           at the server

`exchange` performs these two steps. `policy` checks the limits that a site sets. `preview` computes
the size of a contribution in advance, and `estimate` estimates its time. `contributions` reads and
checks the files of all sites, `resumable` stores checkpoints of interrupted work, and `inspect`
shows a document as text.
"""

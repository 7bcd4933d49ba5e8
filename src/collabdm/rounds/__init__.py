"""A round between sites, as files: what the command line and Flower have in common.

    Plan, images, Policy   ->  Contribution, a file      at a site
    Plan, contributions    ->  outcome, a file           at the server

`exchange` contains the two steps; `policy` the limits that a site sets, `preview` the size of a
contribution before it is computed, and `estimate` its time; `contributions` the checked files of
all sites; `resumable` the checkpoints of interrupted work; and `inspect` a document as text.
"""

"""Tables of network flows as images of traffic.

    rows of a table  ->  pixels (`tables`)  ->  windows of rows  ->  images (`windows`, `images`)

The schema that all sites agree on is `collabdm.documents.flow_schema`. `built_in` contains one,
`schemas` finds one by name or file, and `draft` makes one from a sample. `stations` reads several
tables as the sites of a simulation, `synthetic` writes tables without data, and `issues` counts the
faults of a table.

Reference: R. Holland et al., "One-shot collaborative data distillation", 2024, section 5.3.
"""

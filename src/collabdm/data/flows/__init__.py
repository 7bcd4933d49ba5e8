"""Read tables of network flows as images of traffic.

    rows of a table  ->  pixels (`tables`)  ->  windows of rows  ->  images (`windows`, `images`)

`collabdm.documents.flow_schema` defines the schema that all sites agree on. `built_in` contains a
schema, `schemas` finds a schema by name or file, and `draft` makes a schema from a sample. `chunks`
reads a table piece by piece, and `issues` counts its faults. `stations` reads several tables as the
sites of a simulation, and `synthetic` writes tables of invented flows.

Reference: R. Holland et al., "One-shot collaborative data distillation", 2024, section 5.3.
"""

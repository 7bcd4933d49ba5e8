"""Read tables of network flows as images of traffic.

    rows of a table  ->  pixels (`tables`)  ->  windows of rows  ->  images (`windows`, `images`)
                     ->  encoded values (`rows`)  ->  images of one pixel each

`collabdm.documents.flow_schema` defines the schema that all sites agree on. `built_in` contains a
schema, and `schemas` finds a schema by name or file. `several` finds the files of a site,
`compression` opens one, `dialect` finds out how it is written, `chunks` reads it piece by piece
(`zeek`, `json_lines`, `utf8`), `cells` and `labels` convert its columns, and `issues` counts its
faults. `draft` makes a schema from a sample: `profile` describes its columns, `alone` scores them,
and `leaks` finds those that give the label away. `stations` reads several tables as the sites of a
simulation, and `synthetic` writes tables of invented flows.

Reference: R. Holland et al., "One-shot collaborative data distillation", 2024, section 5.3.
"""

"""The command line: `main` collects the commands, which import their implementation when they run.

    organiser    plan, schema
    site         check, contribute, inspect
    server       distill
    users        evaluate, train, predict, classify, export
    research     simulate, demo, reproduce, report, synthetic-flows

Modules with commands import only typer, so that help, version and shell completion start quickly.
Functions that need PyTorch in their signatures are in `running`.
"""

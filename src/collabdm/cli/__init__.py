"""The command line of collabdm. `main` collects the commands, which belong to these users:

    organiser    plan, schema
    site         check, contribute, view, inspect
    server       distill
    users        evaluate, train, predict, classify, export
    research     simulate, demo, reproduce, report, synthetic-flows

The modules in `commands` import typer but not PyTorch, so that help, version and shell completion
start quickly; each command imports its implementation when it runs. Functions whose signatures
need PyTorch are in `running`.
"""

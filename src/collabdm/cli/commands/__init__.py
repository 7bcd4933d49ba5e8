"""The commands, grouped by the people who use them: their signatures and help texts.

These modules import only typer; a command imports its implementation when it runs.
"""

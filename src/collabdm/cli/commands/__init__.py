"""The commands, by the people who use them: signatures and help texts.

These modules import only typer; a command imports its implementation when it runs.
"""

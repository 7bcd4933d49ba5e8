"""Signatures and help texts of the commands, in one module for each group of users.

The modules import typer but not PyTorch; a command imports its implementation when it runs.
"""

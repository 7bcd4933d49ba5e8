"""Start the command line, for `python -m collabdm`."""

from collabdm.cli.start import start

if __name__ == "__main__":
    start()

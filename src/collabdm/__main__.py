"""Start the command line, for `python -m collabdm`."""

from collabdm.cli.main import main

if __name__ == "__main__":
    main()

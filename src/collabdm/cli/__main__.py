"""`python -m collabdm.cli`."""

from collabdm.cli import main

if __name__ == "__main__":
    main()

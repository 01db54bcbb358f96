"""`python -m smmix_pl` runs the command line."""

from smmix_pl.cli.main import main

if __name__ == "__main__":
    main()

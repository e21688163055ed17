"""Entry point of `python -m hearth_demo`."""

from .cli import main

if __name__ == "__main__":
    main()

"""`python -m tapetum`, and `torchrun -m tapetum` for several processes."""

from tapetum.cli import main

if __name__ == "__main__":
    main()

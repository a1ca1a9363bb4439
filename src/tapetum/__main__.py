"""`python -m tapetum`, and `torchrun -m tapetum` for several processes."""

from tapetum.cli.main import main

if __name__ == "__main__":
    main()

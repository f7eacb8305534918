"""``python -m emp_trio`` is ``emp-trio``."""

from emp_trio.cli import main

if __name__ == "__main__":
    main()

"""Run ``emp-trio`` as ``python -m emp_trio``."""

from emp_trio.cli import main

if __name__ == "__main__":
    main()

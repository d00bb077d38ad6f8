"""`ssdnet` and `python -m ssdnet_jax`: prepares the process, then hands over to `main`."""

import os
import sys


def console() -> None:
    """Entry point of the `ssdnet` command; exits with its status."""
    # Read by XLA when it is loaded, so before anything imports JAX: no log lines on the terminal.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from ssdnet_jax.main import main

    try:
        sys.exit(main(sys.argv))
    except KeyboardInterrupt:
        print("\nssdnet: interrupted; finished images are kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    console()

"""`ssdnet` and `python -m ssdnet_jax`: the process around `main`."""

import sys

from ssdnet_jax.main import main


def console() -> None:
    """Entry point of the `ssdnet` command; exits with its status."""
    try:
        sys.exit(main(sys.argv))
    except KeyboardInterrupt:
        print("\nssdnet: interrupted; finished images are kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    console()
